//! Candidates that must not become live, seen before the flip; and good ones that must not be refused.

use crate::sandbox::{Sandbox, Version, run, sleeper, tools};
use releasectl::directory::Dir;
use releasectl::supervisor::SupervisorError;
use releasectl::supervisor::conf::{Declared, declared_in, files_of, wire};
use releasectl::supervisor::validate::{Candidate, Parser, ValidateError};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

on_both_versions!(
    a_good_candidate_passes_and_nothing_happens,
    supervisords_own_words_are_handed_on,
    what_supervisord_knows_from_its_environment_is_known,
    a_candidate_that_is_not_included_is_refused,
    p19_programs_of_other_environments_cannot_be_taken_over,
    what_a_program_runs_must_be_in_the_candidate,
    a_directory_of_logs_is_looked_for_in_the_candidate,
    a_program_whose_name_supervisord_cannot_tell_is_refused_and_can_still_be_read,
    a_release_without_programs_is_refused_while_some_run,
    a_candidate_behind_a_space_or_another_path_is_found,
    copies_are_validated_before_they_are_made,
    without_a_running_supervisord_the_installed_parser_is_asked,
);

#[test]
fn a_supervisord_under_python_2_is_asked_like_any_other() {
    let version = Version::Python2;
    if version.is_there_or_left_out() {
        a_good_candidate_passes_and_nothing_happens(version);
        supervisords_own_words_are_handed_on(version);
        what_supervisord_knows_from_its_environment_is_known(version);
        a_candidate_behind_a_space_or_another_path_is_found(version);
        copies_are_validated_before_they_are_made(version);
    }
}

#[test]
fn a_supervisord_that_is_too_old_is_told_as_that_before_anything_is_flipped() {
    if Version::Three.is_there_or_left_out() {
        let sandbox = Sandbox::new(Version::Three);
        let declared = sandbox.make("production", "a", &sleeper("web", ""));
        let error = sandbox.check("production", "a", &declared).unwrap_err();
        assert!(error.contains("supervisord 3.4.0 is too old"), "{error}");
    }
}

fn a_good_candidate_passes_and_nothing_happens(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.deploy("production", "a", &sleeper("web", ""));
    let pids = sandbox.pids();
    let conf = sleeper("web", "priority=3") + &sleeper("worker", "") + "[group:all]\nprograms=worker\n";
    let after = sandbox.make("production", "b", &conf);
    sandbox.check("production", "a", &before).unwrap();
    sandbox.check("production", "b", &after).unwrap();
    assert_eq!(sandbox.pids(), pids);
    let reread = sandbox.supervisor().client().reread().unwrap();
    assert!(reread.added.is_empty() && reread.changed.is_empty() && reread.removed.is_empty());
}

fn supervisords_own_words_are_handed_on(version: Version) {
    let sandbox = Sandbox::new(version);
    for (conf, words) in [
        (sleeper("web", "user=no-such-user"), "no-such-user"),
        (sleeper("web", "environment=A=\"%(x)s\""), "contains names ('x') which cannot be expanded"),
        (sleeper("web", "autostart=perhaps"), "not a valid boolean value"),
        (sleeper("web", "numprocs=2"), "process_num"),
        ("[program:web]\n".to_owned(), "does not specify a command"),
        ("[eventlistener:e]\ncommand=x\nevents=NO_SUCH\n".to_owned(), "NO_SUCH"),
        ("[program:a b]\ncommand=x\n".to_owned(), "Invalid name"),
    ] {
        let declared = sandbox.make("production", "bad", &conf);
        let error = sandbox.check("production", "bad", &declared).unwrap_err();
        assert!(error.contains(words), "{conf}: {error}");
    }
    // What we would refuse ourselves when reading the release, supervisord refuses too.
    let declared = sandbox.make("production", "bad", &sleeper("web", ""));
    let file = sandbox.release("production", "bad").join("services/supervisor/worse.conf");
    fs::write(&file, "nonsense\n").unwrap();
    assert!(declared_in(&Dir::open(&sandbox.release("production", "bad")).unwrap()).is_err());
    let error = sandbox.check("production", "bad", &declared).unwrap_err();
    assert!(error.contains("worse.conf"), "{error}");
}

fn what_supervisord_knows_from_its_environment_is_known(version: Version) {
    let sandbox = Sandbox::new(version);
    let declared = sandbox.make("production", "a", &sleeper("web", "environment=A=\"%(ENV_SANDBOX)s\""));
    sandbox.check("production", "a", &declared).unwrap();
    let declared = sandbox.make("production", "a", &sleeper("web", "environment=A=\"%(ENV_NOT_THERE)s\""));
    assert!(sandbox.check("production", "a", &declared).unwrap_err().contains("ENV_NOT_THERE"));
}

fn a_candidate_that_is_not_included_is_refused(version: Version) {
    let sandbox = Sandbox::new(version);
    fs::create_dir_all(sandbox.root("third").join("releases")).unwrap();
    let declared = sandbox.make("third", "a", &sleeper("web", ""));
    let error = sandbox.check("third", "a", &declared).unwrap_err();
    assert!(error.contains("does not include"), "{error}");
    wire::wire(&sandbox.config(), &sandbox.root("third"), "third").unwrap();
    sandbox.check("third", "a", &declared).unwrap();
}

fn p19_programs_of_other_environments_cannot_be_taken_over(version: Version) {
    let sandbox = Sandbox::new(version);
    sandbox.deploy("staging", "a", &(sleeper("web", "") + &sleeper("worker", "")));
    let declared = sandbox.make("production", "a", &sleeper("web", ""));
    let error = sandbox.check("production", "a", &declared).unwrap_err();
    assert!(error.contains("[program:web]") && error.contains("/staging/"), "{error}");
    let declared = sandbox.make("production", "a", &(sleeper("mine", "") + "[group:worker]\nprograms=mine\n"));
    assert!(sandbox.check("production", "a", &declared).unwrap_err().contains("the group worker"));
    fs::write(sandbox.path().join("theirs.conf"), "[group:all]\nprograms=mine\n").unwrap();
    let text = fs::read_to_string(sandbox.config()).unwrap();
    fs::write(sandbox.config(), text.replace("files = ", "files = theirs.conf ")).unwrap();
    let declared = sandbox.make("production", "a", &sleeper("mine", ""));
    assert!(sandbox.check("production", "a", &declared).unwrap_err().contains("the group mine"));
}

fn what_a_program_runs_must_be_in_the_candidate(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = "[program:web]\ncommand=ROOT/current/bin/web --now\ndirectory=ROOT/current/app\n";
    let declared = sandbox.make("production", "a", conf);
    let release = sandbox.release("production", "a");
    let error = sandbox.check("production", "a", &declared).unwrap_err();
    assert!(error.contains("web:web") && error.contains("/current/bin/web is no program"), "{error}");
    fs::create_dir(release.join("bin")).unwrap();
    fs::write(release.join("bin/web"), "#!/bin/sh\n").unwrap();
    assert!(sandbox.check("production", "a", &declared).unwrap_err().contains("is no program"));
    fs::set_permissions(release.join("bin/web"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(sandbox.check("production", "a", &declared).unwrap_err().contains("/current/app is no directory"));
    fs::create_dir(release.join("app")).unwrap();
    sandbox.check("production", "a", &declared).unwrap();
}

fn a_directory_of_logs_is_looked_for_in_the_candidate(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("web", "stdout_logfile=ROOT/current/log/web.log");
    sandbox.deploy("production", "a", &sleeper("web", ""));
    let declared = sandbox.make("production", "b", &conf);
    fs::create_dir(sandbox.release("production", "b").join("log")).unwrap();
    sandbox.check("production", "b", &declared).unwrap();
    fs::create_dir(sandbox.release("production", "a").join("log")).unwrap();
    sandbox.make("production", "c", &conf);
    let error = sandbox.check("production", "c", &declared).unwrap_err();
    assert!(error.contains("c/log/web.log"), "{error}");
}

fn a_program_whose_name_supervisord_cannot_tell_is_refused_and_can_still_be_read(version: Version) {
    let sandbox = Sandbox::new(version);
    for conf in
        [sleeper("wéb", ""), sleeper("web", "process_name=w\u{fc}b"), sleeper("web", "") + "[group:ä]\nprograms=web\n"]
    {
        let declared = sandbox.make("production", "a", &conf);
        let error = sandbox.check("production", "a", &declared).unwrap_err();
        assert!(error.contains("not ASCII"), "{conf}: {error}");
        assert_eq!(declared_in(&Dir::open(&sandbox.release("production", "a")).unwrap()).unwrap(), declared);
    }
}

fn a_release_without_programs_is_refused_while_some_run(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.deploy("production", "a", &sleeper("web", ""));
    sandbox.make("production", "b", "");
    let (root, path) = (sandbox.root("production"), sandbox.release("production", "b"));
    let candidate = Candidate { root: &root, path: &path, copies: None, unfinished: false };
    let checked = sandbox.supervisor().check(&tools(), &candidate, &before, &Declared::default());
    assert!(matches!(checked, Err(SupervisorError::Unexpected(_))), "{checked:?}");
    let checked = sandbox.supervisor().check(&tools(), &candidate, &Declared::default(), &Declared::default());
    assert!(checked.is_ok());
}

fn a_candidate_behind_a_space_or_another_path_is_found(version: Version) {
    let sandbox = Sandbox::new(version);
    fs::create_dir_all(sandbox.path().join("www/my [app] 5%/releases")).unwrap();
    let declared = sandbox.make("my [app] 5%", "a", "[program:odd]\ncommand=/bin/true\n");
    wire::wire(&sandbox.config(), &sandbox.root("my [app] 5%"), "odd").unwrap();
    sandbox.check("my [app] 5%", "a", &declared).unwrap();
    // Included by hand, through a link to the tree's root and with a wildcard in it.
    fs::create_dir_all(sandbox.root("third").join("releases")).unwrap();
    std::os::unix::fs::symlink("www/third", sandbox.path().join("srv")).unwrap();
    let text = fs::read_to_string(sandbox.config()).unwrap();
    let by_hand = text.replace("files = ", "files = sr?/current/services/*/*.conf ");
    fs::write(sandbox.config(), by_hand).unwrap();
    let declared = sandbox.make("third", "a", "[program:third]\ncommand=/bin/true\n");
    sandbox.check("third", "a", &declared).unwrap();
}

fn copies_are_validated_before_they_are_made(version: Version) {
    let sandbox = Sandbox::new(version);
    let copies = wire::directory_of_copies(&sandbox.config());
    fs::create_dir(&copies).unwrap();
    fs::create_dir_all(sandbox.root("third").join("releases")).unwrap();
    let text = fs::read_to_string(sandbox.config()).unwrap();
    let check = |id: &str, declared: &Declared| {
        let (root, path) = (sandbox.root("third"), sandbox.release("third", id));
        let copies = Some(copies.join(wire::name_of_copy("third", "")));
        let candidate = Candidate { root: &root, path: &path, copies, unfinished: false };
        let checked = sandbox.supervisor().check(&tools(), &candidate, &Declared::default(), declared);
        checked.map_err(|e| e.to_string())
    };
    let first = sandbox.make("third", "a", &sleeper("web", ""));
    assert!(check("a", &first).unwrap_err().contains("does not include"));
    fs::write(sandbox.config(), text.replace("files = ", "files = conf.d/*.conf ")).unwrap();
    check("a", &first).unwrap();
    let files = files_of(&Dir::open(&sandbox.release("third", "a")).unwrap()).unwrap();
    wire::install(&copies, "third", None, &files).unwrap();
    // The copies of the release that is live give way to those of the candidate.
    let second = sandbox.make("third", "b", &sleeper("web", "priority=5"));
    check("b", &second).unwrap();
    let broken = sandbox.make("third", "c", &sleeper("web", "priority=high"));
    assert!(check("c", &broken).unwrap_err().contains("high"));
}

fn without_a_running_supervisord_the_installed_parser_is_asked(version: Version) {
    let mut sandbox = Sandbox::new(version);
    sandbox.kill();
    let declared = sandbox.make("production", "a", &sleeper("web", "user=no-such-user"));
    let path = version.program("supervisord").parent().unwrap().to_owned();
    let tools = releasectl::tools::Tools::new([("PATH".into(), path.into_os_string())].into_iter(), false);
    let parser = Parser::find(&tools, None).unwrap();
    let (root, path) = (sandbox.root("production"), sandbox.release("production", "a"));
    let candidate = Candidate { root: &root, path: &path, copies: None, unfinished: false };
    let limit = Duration::from_secs(60);
    let checked = parser.check(&tools, limit, &sandbox.config(), &candidate, &declared);
    assert!(matches!(&checked, Err(ValidateError::Refused { text }) if text.contains("no-such-user")), "{checked:?}");
}

#[test]
fn a_parser_that_is_not_there_or_hangs_is_said_to_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let tools = releasectl::tools::Tools::new([("PATH".into(), dir.path().into())].into_iter(), false);
    assert!(matches!(Parser::find(&tools, None), Err(ValidateError::NoParser(_))));
    let script = dir.path().join("supervisord");
    let check = |python: &str| {
        fs::write(&script, format!("#!{python}\n")).unwrap();
        run(Command::new("chmod").arg("755").arg(&script));
        let candidate = Candidate { root: dir.path(), path: dir.path(), copies: None, unfinished: false };
        let parser = Parser::find(&tools, None).unwrap();
        let limit = Duration::from_millis(100);
        parser.check(&tools, limit, &dir.path().join("s.conf"), &candidate, &Declared::default()).unwrap_err()
    };
    assert!(matches!(check("/nowhere/python"), ValidateError::Tool(_)));
    fs::write(dir.path().join("hang"), "#!/bin/sh\nexec /bin/sleep 1000\n").unwrap();
    run(Command::new("chmod").arg("755").arg(dir.path().join("hang")));
    let error = check(dir.path().join("hang").to_str().unwrap());
    assert!(error.to_string().contains("killed"), "{error}");
}
