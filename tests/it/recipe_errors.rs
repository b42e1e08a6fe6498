//! What is wrong with a recipe or a host's file is said with its file, its line and the nearest known key.

use crate::sandbox::Sandbox;

/// A recipe, the line of its fault, and what is said of it.
const RECIPES: &[(&str, usize, &str)] = &[
    ("# one\n\n[pyhton]\ndirectory = 'env'\n", 3, "unknown key `pyhton`; the nearest known is `python`"),
    ("[python]\ndirectroy = 'env'\n", 2, "unknown key `directroy`; the nearest known is `directory`"),
    (
        "[[step]]\nname = 'a'\nrun = 'true'\n[[step]]\nname = 'b'\nrun = 'true'\ntimeot = '5s'\n",
        7,
        "unknown key `timeot`; the nearest known is `timeout`",
    ),
    ("[task.x]\nrunn = 'true'\n", 2, "unknown key `runn`; the nearest known is `run`"),
    ("[shared]\nfiles = '.env'\n", 2, "`shared.files`: invalid type: string \".env\", expected a list"),
    ("[shared]\ndirs = ['a', '']\n", 2, "`shared.dirs`: \"\": a path must lie in the release"),
    ("manage = 1\n", 1, "`manage`: invalid type: integer `1`, expected a string"),
    ("[task]\nlist = 'ls'\n", 2, "`task.list`: invalid type: string \"ls\""),
    ("[[step]]\nname = 'a'\nrun = 'true'\nphase = true\n", 4, "`step.phase`: expected a string"),
    ("[clean]\nkeep_for = true\n", 2, "`clean.keep_for`: \"boolean\" is not a duration such as"),
    ("[clean]\nkeep_for = -1\n", 2, "`clean.keep_for`: \"-1\" is not a duration such as"),
    ("[health]\nurl = 'https://x/up'\n", 2, "`health.url`: \"https://x/up\": https is not spoken here"),
    ("[health]\nurl = 'x/up'\n", 2, "use `command`, such as \"curl -fsS x/up\""),
    ("[health]\nurl = 'http://x'\ncommand = 'true'\n", 3, "[health] has both url and command: keep one of them"),
    ("[python]\n\nrequirements = [1]\n", 3, "expected path string"),
    ("[[step]]\nname = 'a'\nrun = 'true'\ntimeout = 'soon'\n", 4, "\"soon\" is not a duration such as"),
    ("[clean]\nmin_free = 'much'\n", 2, "\"much\" is not a size such as"),
    ("[[step]]\nname = 'a'\nrun = 'true'\nphase = 'later'\n", 4, "unknown variant `later`"),
    ("[[step]]\nname = 'a'\nrun = 'true'\nretry = { for = '5m' }\n", 4, "missing field `every`"),
    ("roles = ['x']\n", 1, "`roles` is the host's to say, not the recipe's"),
    ("[shared]\ndirs = []\n[source]\ngit = 'x'\n", 3, "`source` is the host's to say"),
    ("[supervisor]\ntemplates = 't'\nconfig = '/etc/x'\n", 3, "`supervisor.config` is the host's to say"),
    ("user = 'root'\n", 1, "`user` is the host's to say"),
    ("[[step]]\nname = 'a'\nrun = 'true'\n\n[[step]]\nname = 'b'\n", 5, "step \"b\" has none of run, stop and start"),
    ("\n[[step]]\nrun = 'true'\n", 2, "this [[step]] has no name"),
    ("[[step]]\nname = 'a'\nrun = 'true'\n[[step]]\nname = 'a'\nrun = 'true'\n", 4, "two steps are named \"a\""),
    ("[[step]]\nname = 'python'\nrun = 'true'\n", 1, "\"python\" is the name of a step of releasectl's own"),
    ("[[step]]\nname = 'a'\nrun = 'true'\n[hooks\n", 4, ""),
    ("[task.x]\n", 1, "missing field `run`"),
    ("[python]\nversion = '3.x'\n", 2, "\"3.x\" is not a Python version such as \"3.11\""),
    ("[python]\nversion = '3;id'\n", 2, "is not a Python version"),
    ("[python]\nversion = '../3'\n", 2, "is not a Python version"),
    ("[python]\nversion = '3.11.2.1'\n", 2, "is not a Python version"),
    ("[python]\nversion = '31111'\n", 2, "is not a Python version"),
    ("[python]\nversion = ''\n", 2, "is not a Python version"),
];

#[test]
fn every_fault_of_a_recipe_is_told_with_file_line_and_the_nearest_known_key() {
    let tree = Sandbox::with_live(&["A"]);
    let before = tree.live();
    for (at, (recipe, line, said)) in RECIPES.iter().enumerate() {
        let (id, source) = (format!("R{at}"), tree.code(&format!("code-{at}"), recipe, &[]));
        let answer = tree.ends(7, &["create", &source, "--id", &id]);
        let place = format!("releases/{id}/releasectl.toml: line {line}: ");
        assert!(answer.stderr.contains(&place), "{recipe}\n{}", answer.stderr);
        assert!(answer.stderr.contains(said), "{recipe}\n{}", answer.stderr);
        assert!(answer.stderr.contains("hint: correct it where the code comes from, then build anew"));
        let document = tree.json(&["create", &source, "--id", &format!("J{at}")]);
        assert_eq!((&document["error"]["kind"], &document["error"]["exit"]), (&"configuration".into(), &7.into()));
    }
    assert_eq!(tree.live(), before);
}

#[test]
fn a_fault_of_the_hosts_file_is_told_before_anything_is_done() {
    let tree = Sandbox::laid_out();
    let source = tree.source("x");
    let before = tree.picture();
    for (text, line, said) in [
        ("root = '/srv'\n\nuzer = 'x'\n", 3, "unknown key `uzer`; the nearest known is `user`"),
        ("[source]\nlink = 'symlink'\n", 2, "unknown variant `symlink`"),
        ("roles = 'web'\n", 1, "expected a list"),
        ("[source]\ngit = ''\n", 2, "`source.git`: \"\" is neither a URL nor an absolute path"),
        ("[source]\ngit = '~/app'\n", 2, "\"~/app\" is neither a URL nor an absolute path"),
        ("[[step]]\nname = 'a'\n", 1, "step \"a\" has none of run, stop and start"),
    ] {
        let file = tree.host(text);
        let answer = tree.ends(7, &["--config", &file, "deploy", source.to_str().unwrap()]);
        assert!(answer.stderr.contains(&format!("host.toml: line {line}: ")), "{}", answer.stderr);
        assert!(answer.stderr.contains(said), "{}", answer.stderr);
    }
    assert_eq!(tree.picture(), before);
}

#[test]
fn a_number_alone_is_seconds_or_bytes_with_and_without_quotation_marks() {
    let tree = Sandbox::with_releases(&["A", "B"]);
    let text = |seconds: &str, bytes: &str| format!("[clean]\nkeep = 0\nkeep_for = {seconds}\nmin_free = {bytes}\n");
    for (seconds, bytes) in [("3600", "1"), ("'3600'", "'1'"), ("'1h'", "'1K'")] {
        let host = tree.host(&text(seconds, bytes));
        let document = tree.json(&["--config", &host, "clean", "--dry-run"]);
        assert_eq!(document["removed"], serde_json::json!([]), "{document}");
    }
    tree.ends(7, &["--config", &tree.host(&text("1.5", "1")), "clean", "--dry-run"]);
    tree.ends(7, &["--config", &tree.host(&text("1", "1.5")), "clean", "--dry-run"]);
}

#[test]
fn the_hosts_way_of_asking_for_health_stands_instead_of_the_recipes() {
    let tree = Sandbox::laid_out();
    let code = |name: &str, health: &str| tree.code(name, &format!("[health]\ntimeout = '1s'\n{health}\n"), &[]);
    let (url, command) = (code("a", "url = 'http://127.0.0.1:1/up'"), code("b", "command = 'false'"));
    let host = tree.host("[health]\ncommand = 'true'\n");
    tree.ends(0, &["--config", &host, "deploy", &url]);
    tree.ends(0, &["--config", &host, "deploy", &command]);
    let host = tree.host("[health]\nurl = 'http://127.0.0.1:1/up'\n");
    for code in [&url, &command] {
        let answer = tree.ends(5, &["--config", &host, "deploy", code]);
        assert!(answer.stderr.contains("http://127.0.0.1:1/up did not pass within 1 s"), "{}", answer.stderr);
    }
    // Without a question of the host's own the recipe's is asked, in the host's time.
    let answer = tree.ends(5, &["--config", &tree.host("[health]\ntimeout = 2\n"), "deploy", &command]);
    assert!(answer.stderr.contains("false did not pass within 2 s"), "{}", answer.stderr);
}

#[test]
fn a_path_of_the_recipe_that_leads_out_of_the_release_is_refused() {
    let tree = Sandbox::with_live(&["A"]);
    for (at, recipe) in [
        "[shared]\ndirs = ['../x']\n",
        "[shared]\nfiles = ['/etc/passwd']\n",
        "[shared]\ncarry = ['.releasectl']\n",
        "[python]\ndirectory = '../x'\n",
        "[python]\ndirectory = '.'\n",
        "[python]\nrequirements = ['/x.txt']\n",
        "[python]\nwheelhouse = 'a/../../x'\n",
    ]
    .iter()
    .enumerate()
    {
        let (id, source) = (format!("R{at}"), tree.code(&format!("code-{at}"), recipe, &[]));
        let said = tree.ends(7, &["create", &source, "--id", &id]).stderr;
        let place = format!("releases/{id}/releasectl.toml: line 2: ");
        assert!(said.contains(&place) && said.contains("a path must lie in the release"), "{recipe}\n{said}");
        let before = tree.states();
        let said = tree.ends(7, &["--config", &tree.host(recipe), "create", &source]).stderr;
        assert!(said.contains("host.toml: line 2: "), "{recipe}\n{said}");
        assert_eq!((tree.states(), tree.live().as_deref()), (before, Some("A")));
    }
}

/// More of a recipe with templates, the line of its fault, and what is said of it.
const TEMPLATES: &[(&str, usize, &str)] = &[
    (
        "[[supervisor.program]]\ntemplate = 'web.conf'\n[[supervisor.program]]\ntemplate = 'celery_wroker.conf'\n",
        6,
        "there is no template \"celery_wroker.conf\" in deploy/programs; the nearest there is \"celery_worker.conf\"",
    ),
    (
        "[[supervisor.program]]\nroles = ['of another host']\ntemplate = 'wep.conf'\n",
        5,
        "the nearest there is \"web.conf\"",
    ),
];

#[test]
fn a_template_that_is_not_there_is_told_with_file_line_and_the_nearest_before_anything_is_built_on_it() {
    let tree = Sandbox::with_live(&["A"]);
    let files = ["web", "celery_worker"].map(|name| format!("deploy/programs/{name}.conf"));
    let files = files.each_ref().map(|file| (file.as_str(), "[program:x]\ncommand=/bin/sleep 1\n"));
    let step = "[[step]]\nname = 'x'\nphase = 'create'\nrun = 'touch \"$RELEASECTL_ROOT/ran\"'\n";
    let with = |directory: &str, more: &str| format!("[supervisor]\ntemplates = '{directory}'\n{more}{step}");
    let fails = |at: &str, recipe: &str, options: &[&str], place: &str, said: &str| {
        let source = tree.code(at, recipe, &files);
        let answer = tree.ends(7, &[options, &["create", &source, "--id", at]].concat());
        assert!(answer.stderr.contains(place) && answer.stderr.contains(said), "{recipe}\n{}", answer.stderr);
    };
    for (at, (more, line, said)) in TEMPLATES.iter().enumerate() {
        let place = format!("releases/T{at}/releasectl.toml: line {line}: ");
        fails(&format!("T{at}"), &with("deploy/programs", more), &[], &place, said);
    }
    let program = "[[supervisor.program]]\ntemplate = 'web.conf'\n";
    let gone =
        "there is no directory \"deploy/program\" of templates in the code; the nearest there is \"deploy/programs\"";
    fails("D", &with("deploy/program", program), &[], "releases/D/releasectl.toml: line 2: ", gone);
    let nowhere = "template \"web.conf\" is in no directory: [supervisor] has no `templates`";
    fails("N", &format!("{program}{step}"), &[], "releases/N/releasectl.toml: line 2: ", nowhere);
    // Where the host says it, the host's file is named.
    let host =
        tree.host("[supervisor]\ntemplates = 'deploy/programs'\n[[supervisor.program]]\ntemplate = 'wob.conf'\n");
    let said = "there is no template \"wob.conf\" in deploy/programs; the nearest there is \"web.conf\"";
    fails("H", step, &["--config", &host], "host.toml: line 4: ", said);
    assert!(!tree.at("ran").exists(), "no step was run");
    // What is blacklisted is not asked for; what is there renders.
    let recipe = with(
        "deploy/programs",
        &format!("blacklist = ['gone']\n{program}[[supervisor.program]]\ntemplate = 'gone.conf'\n"),
    );
    tree.done(&["create", &tree.code("G", &recipe, &files), "--id", "G"]);
    assert!(tree.release("G").join("services/supervisor/web.conf").exists());
    assert_eq!(tree.live().as_deref(), Some("A"));
}
