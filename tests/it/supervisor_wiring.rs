//! The verbs about supervisord's files and about programs, and a set of programs that changes from release to release.

use crate::patience::eventually;
use crate::supervised::{Version, World, script, sleeper};
use std::fs;
use std::path::Path;

/// Debian's own file.
const STOCK: &str = "; supervisor config file\n\n[unix_http_server]\nfile=/var/run/supervisor.sock   ; (the path to the socket file)\n\
    chmod=0700                       ; sockef file mode (default 0700)\n\n[supervisord]\nlogfile=/var/log/supervisor/supervisord.log ; (main log file;default $CWD/supervisord.log)\n\
    pidfile=/var/run/supervisord.pid ; (supervisord pidfile;default supervisord.pid)\nchildlogdir=/var/log/supervisor            ; ('AUTO' child log dir, default $TEMP)\n\n\
    [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\n\
    [supervisorctl]\nserverurl=unix:///var/run/supervisor.sock ; use a unix:// URL  for a unix socket\n\n\
    ; The [include] section can just contain the \"files\" setting.\n\n[include]\nfiles = /etc/supervisor/conf.d/*.conf\n";

#[test]
fn wiring_is_a_fixed_point_and_unwiring_gives_every_byte_back() {
    let no_include = STOCK.split("; The [include]").next().unwrap();
    let continued = format!(
        "{no_include}[include]\n; ours\nfiles = /a/*.conf   ; first\n  /b/*.conf\n\n  # a comment\n  /c/*.conf\n[program:x]\ncommand=/bin/true\n"
    );
    let dos = STOCK.replace('\n', "\r\n");
    let unended = STOCK.trim_end();
    for text in [STOCK, no_include, &continued, &dos, unended] {
        let world = World::new();
        fs::write(world.config(), text).unwrap();
        assert_eq!(world.json(0, "supervisor status")["wired"], serde_json::Value::Null);
        assert_eq!(world.json(0, "supervisor wire")["changed"], true);
        let wired = fs::read_to_string(world.config()).unwrap();
        assert_ne!(wired, text);
        let document = world.json(0, "supervisor wire");
        assert_eq!((&document["changed"], &document["wired"]), (&false.into(), &"include".into()));
        assert_eq!(fs::read_to_string(world.config()).unwrap(), wired);
        assert_eq!(world.json(0, "supervisor unwire")["changed"], true);
        assert_eq!(fs::read_to_string(world.config()).unwrap(), text);
        assert_eq!(world.json(0, "supervisor unwire")["changed"], false);
    }
}

#[test]
fn two_include_sections_a_missing_file_and_none_configured_are_told() {
    let world = World::new();
    fs::write(world.config(), format!("{STOCK}[include]\nfiles = /other/*.conf\n")).unwrap();
    let before = fs::read_to_string(world.config()).unwrap();
    let answer = world.ends(1, "supervisor wire");
    assert!(answer.stderr.contains("include"), "{}", answer.stderr);
    assert_eq!(fs::read_to_string(world.config()).unwrap(), before);
    fs::rename(world.config(), world.tree.beside("away")).unwrap();
    let answer = world.ends(1, "supervisor wire");
    assert!(answer.stderr.contains("does not exist"), "{}", answer.stderr);
    for words in [vec!["supervisor", "wire"], vec!["restart"], vec!["stop", "x"], vec!["supervisorctl", "status"]] {
        assert!(world.tree.refused(&words).contains("no supervisor is configured"));
    }
}

#[test]
fn spaces_and_percent_signs_in_the_path_are_no_matter() {
    let mut world = World::new();
    world.kill();
    world.done("supervisor unwire");
    let root = world.tree.beside("a tree [100%]");
    let host = format!("root = {root:?}\n[supervisor]\nconfig = {:?}\n", world.config());
    fs::write(world.tree.beside("app.toml"), host).unwrap();
    let before = fs::read(world.config()).unwrap();
    world.done("init");
    world.done("supervisor wire");
    world.start();
    let escaped = root.display().to_string().replace('%', "%%");
    let conf = format!("[program:web]\ncommand=/bin/sleep 1000\ndirectory={escaped}/current\nstartsecs=0\n");
    world.build("A", &conf, &[]);
    world.build("B", &conf, &[]);
    world.done("activate A");
    world.done("activate B");
    assert_eq!(world.works_in("web"), "B");
    world.done("supervisor unwire");
    assert_eq!(fs::read(world.config()).unwrap(), before);
}

#[test]
fn a_release_that_is_not_included_is_refused_with_the_way_out() {
    let world = World::new();
    world.done("supervisor unwire");
    world.build("A", &sleeper("web", ""), &[]);
    let answer = world.ends(3, "activate A");
    assert!(answer.stderr.contains("releasectl supervisor wire"), "{}", answer.stderr);
    assert_eq!(world.tree.live(), None);
    world.ends(6, "doctor");
    world.done("supervisor wire");
    world.done("activate A");
    world.is_well("A", &["web"]);
    // No wiring makes supervisord look where copies go.
    world.done("supervisor unwire");
    world.host("[supervisor]\nwiring = \"copy\"\n");
    let said = world.ends(3, "restart").stderr;
    assert!(said.contains("conf.d/*.conf") && !said.contains("supervisor wire"), "{said}");
    let said = world.ends(1, "supervisor wire").stderr;
    assert!(said.contains("conf.d does not exist") && !said.contains("build anew"), "{said}");
}

fn programs_come_and_go_with_their_releases(version: Version) {
    let world = World::of(version, "");
    world.build("A", &(sleeper("web", "") + &sleeper("old", "")), &[]);
    world.build("B", &(sleeper("web", "") + &sleeper("new", "")), &[]);
    world.build("C", &sleeper("new", "priority=3"), &[]);
    world.done("activate A");
    world.is_well("A", &["old", "web"]);
    world.done("activate B");
    world.is_well("B", &["new", "web"]);
    world.done("activate C");
    world.is_well("C", &["new"]);
    world.done("rollback");
    world.is_well("B", &["new", "web"]);
    world.done("rollback");
    world.is_well("A", &["old", "web"]);
    // Two flips whose programs nobody moved, and then all at once.
    world.done("activate B --no-restart");
    world.done("activate C --no-restart");
    assert_eq!(world.works_in("old"), "A");
    world.done("restart");
    world.is_well("C", &["new"]);
}

fn copies_are_made_instead_of_an_include(version: Version) {
    let mut world = World::of(version, "");
    world.done("supervisor unwire");
    world.kill();
    let confd = world.tree.beside("conf.d");
    fs::create_dir(&confd).unwrap();
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), text.replace("others/*.conf", "conf.d/*.conf")).unwrap();
    world.host("[supervisor]\nwiring = \"copy\"\n");
    world.start();
    let copies = || {
        let names = fs::read_dir(&confd).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    world.build("A", &sleeper("web", ""), &[("services/supervisor/more.conf", &sleeper("old", "directory=/"))]);
    let more = "[program:old]\ncommand=/bin/sleep 1000\nstartsecs=0\n";
    fs::write(world.tree.release("A").join("services/supervisor/more.conf"), more).unwrap();
    world.build("B", &sleeper("web", ""), &[]);
    world.build("C", &script("web", "dies.sh", ""), &[("dies.sh", "exit 3\n")]);
    world.done("activate A");
    assert_eq!(copies(), ["releasectl-app@app.conf", "releasectl-app@more.conf"]);
    assert_eq!(world.states().len(), 2);
    world.done("activate B");
    assert_eq!(copies(), ["releasectl-app@app.conf"]);
    world.is_well("B", &["web"]);
    world.ends(5, "activate C");
    world.is_well("B", &["web"]);
    assert!(fs::read_to_string(confd.join("releasectl-app@app.conf")).unwrap().contains("/bin/sleep"));
    assert_eq!(world.json(0, "supervisor status")["wired"], "copy");
    // What cannot be copied leaves alone what runs.
    let pid = world.pid("web");
    world.build("D", &sleeper("web", "priority=7"), &[]);
    let frozen = crate::activate::Frozen::new(confd.clone());
    let said = world.ends(5, "activate D").stderr;
    drop(frozen);
    assert!(said.contains("conf.d cannot be changed") && said.contains("B is live again, and came up"), "{said}");
    assert_eq!(world.pid("web"), pid);
    world.is_well("B", &["web"]);
    // Edited by hand it is not what the release has.
    let copy = confd.join("releasectl-app@app.conf");
    let edited = fs::read_to_string(&copy).unwrap() + "autostart=false\n";
    fs::write(&copy, edited).unwrap();
    let told = world.ends(6, "doctor").stdout;
    assert!(told.contains("BAD  wiring") && told.contains("`releasectl supervisor wire`"), "{told}");
    assert_eq!(world.json(0, "supervisor wire")["wired"], "copy");
    assert!(world.run("doctor").stdout.contains("ok   wiring"));
    world.done("rollback");
    assert_eq!(copies().len(), 2);
    // With nothing live there is nothing to be read, whatever was left before.
    let left = fs::read(&copy).unwrap();
    world.done("deactivate --yes");
    assert_eq!(copies().len(), 0);
    assert_eq!(world.json(0, "supervisor status")["wired"], "copy");
    for words in ["supervisor wire", "deactivate --yes"] {
        fs::write(&copy, &left).unwrap();
        assert_eq!(world.json(0, "supervisor status")["wired"], serde_json::Value::Null);
        world.done(words);
        assert_eq!(copies().len(), 0);
    }
    world.done("activate A");
    assert_eq!(copies().len(), 2);
    // What supervisord starts from is what is live, though it was not even there to be asked.
    world.kill();
    world.done("activate B --no-restart");
    assert_eq!((copies().len(), &world.json(0, "supervisor status")["wired"]), (1, &"copy".into()));
    world.start();
    world.is_well("B", &["web"]);
    assert_eq!(world.json(0, "supervisor unwire")["changed"], true);
    assert_eq!(copies().len(), 0);
}

on_both_versions!(programs_come_and_go_with_their_releases, copies_are_made_instead_of_an_include);

const TEMPLATE: &str = "[program:celery_{{ queue }}_{{ index }}]\ncommand=/bin/sleep {{ params.seconds }}\n\
     directory={{ current }}\nstartsecs=0\nenvironment=HOST=\"{{ host }}\"\n";
const RECIPE: &str = "[supervisor]\ntemplates = \"deploy\"\n[[supervisor.program]]\ntemplate = \"celery.conf\"\nroles = [\"celery\"]\ncount = 2\n\
     params = { queue = \"main\", seconds = 1000 }\n[[supervisor.program]]\ntemplate = \"web.conf\"\nroles = [\"web\"]\n";

#[test]
fn templates_are_rendered_for_this_host_as_a_stage_of_the_build() {
    let world = World::new();
    world.host("roles = [\"celery\"]\n");
    let files = [("deploy/celery.conf", TEMPLATE), ("deploy/web.conf", "{{ missing }}"), ("releasectl.toml", RECIPE)];
    world.build("A", "", &files);
    let directory = world.tree.release("A").join("services/supervisor");
    let names: Vec<_> = fs::read_dir(&directory).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    world.done("verify A");
    let steps = world.json(0, "show A");
    assert!(steps.to_string().contains("\"supervisor\""), "{steps}");
    world.done("activate A");
    world.is_well("A", &["celery_main_0", "celery_main_1"]);
    // The host changes: its live release is rendered anew and its programs follow.
    world.host("roles = [\"celery\"]\n[supervisor]\nblacklist = [\"celery\"]\n");
    assert_eq!(world.json(0, "supervisor render")["changed"], true);
    assert_eq!(world.json(0, "supervisor render")["changed"], false);
    world.done("verify");
    world.ends(3, "restart");
    world.is_well("A", &["celery_main_0", "celery_main_1"]);
    world.host("roles = [\"celery\"]\n");
    world.done("supervisor render");
    // Only the user of the host's file is written, never a guess.
    assert!(!fs::read_to_string(directory.join("celery_0.conf")).unwrap().contains("user="));
    // A value that a template lacks fails the build, and nothing live changes.
    world.host("roles = [\"celery\", \"web\"]\n");
    let source = world.tree.source("A");
    let answer = world.ends(1, &format!("create {} --id B", source.display()));
    assert!(answer.stderr.contains("web.conf"), "{}", answer.stderr);
    assert_eq!(world.tree.states()["B"], "incomplete");
}

#[test]
fn a_step_may_not_take_the_name_of_the_stage() {
    let world = World::new();
    let source = world.tree.source("A");
    fs::write(source.join("releasectl.toml"), "[[step]]\nname = \"supervisor\"\nrun = \"true\"\n").unwrap();
    world.ends(7, &format!("create {} --id A", source.display()));
}

#[test]
fn programs_are_restarted_started_and_stopped_by_name() {
    let world = World::new();
    world.ends(3, "restart");
    let conf = sleeper("web", "numprocs=2\nprocess_name=%(program_name)s_%(process_num)d") + &sleeper("worker", "");
    world.build("A", &conf, &[]);
    world.done("activate A");
    let pid = world.pid("worker");
    let document = world.json(0, "restart web");
    assert_eq!(document["restarted"], serde_json::json!(["web:web_0", "web:web_1"]));
    assert_eq!(world.pid("worker"), pid);
    assert_eq!(world.json(0, "stop worker web:web_1")["stopped"].as_array().unwrap().len(), 2);
    assert_eq!(world.states()["worker"], "STOPPED");
    assert_eq!(world.json(0, "stop worker")["changed"], false);
    assert_eq!(world.json(0, "start worker")["started"], serde_json::json!(["worker:worker"]));
    assert_eq!(world.states()["web:web_1"], "STOPPED");
    let answer = world.ends(3, "start nothing-like-it");
    assert!(answer.stderr.contains("worker"), "{}", answer.stderr);
    let status = world.json(0, "status");
    let programs = status["programs"].as_array().unwrap();
    assert_eq!(programs.len(), 3);
    assert_eq!(programs[0]["name"], "web_0");
    assert_eq!(programs[0]["group"], "web");
    assert_eq!(programs[0]["state"], "RUNNING");
    assert_eq!(programs[0]["pid"], world.pid("web:web_0"));
    assert!(programs[0]["uptime"].is_u64());
    let processes = world.json(0, "ps");
    let of_worker = processes["processes"].as_array().unwrap().iter().find(|p| p["program"] == "worker:worker");
    assert_eq!(of_worker.unwrap()["pid"], world.pid("worker"));
    let answer = world.ends(6, "doctor");
    assert!(answer.stdout.contains("often root: web, worker"), "{}", answer.stdout);
    let answer = world.ends(0, "supervisorctl pid worker");
    assert_eq!(answer.stdout.trim(), world.pid("worker").to_string());
}

#[test]
fn what_runs_on_after_a_deactivation_is_told_with_the_way_to_stop_it() {
    let mut world = World::new();
    world.build("A", &(sleeper("web", "") + &sleeper("worker", "")), &[]);
    world.done("activate A");
    world.done("stop worker");
    let answer = world.ends(0, "deactivate --yes");
    assert!(
        answer.stderr.contains("its programs still run: `releasectl supervisorctl stop web` stops"),
        "{}",
        answer.stderr
    );
    world.done("supervisorctl stop web");
    assert_eq!(world.states()["web"], "STOPPED");
    world.done("activate A");
    world.kill();
    let answer = world.ends(0, "deactivate --yes");
    assert!(answer.stderr.contains("whether its programs still run is not known"), "{}", answer.stderr);
}

#[test]
fn what_a_deploy_stops_comes_up_with_its_release_even_after_a_failure_in_between() {
    let world = World::new();
    let conf = (sleeper("web", "") + &sleeper("worker", "") + &sleeper("idle", ""))
        .replace("ROOT", world.tree.root().to_str().unwrap());
    let source = world.tree.source("app");
    fs::create_dir_all(source.join("services/supervisor")).unwrap();
    fs::write(source.join("services/supervisor/app.conf"), conf).unwrap();
    let recipe = "[[step]]\nname = \"stop\"\nstop = [\"worker\", \"idle\", \"of-a-later-release\"]\n\
         [[step]]\nname = \"migrate\"\nrun = \"test ! -e ../../broken\"\n";
    fs::write(source.join("releasectl.toml"), recipe).unwrap();
    let deploy = format!("deploy {}", source.display());
    world.done(&deploy);
    let first = world.tree.live().unwrap();
    world.is_well(&first, &["idle", "web", "worker"]);
    world.done("stop idle");
    fs::write(world.tree.at("broken"), "").unwrap();
    let answer = world.ends(1, &deploy);
    assert!(answer.stderr.contains("not started again: worker:worker"), "{}", answer.stderr);
    assert_eq!(world.tree.live().as_deref(), Some(first.as_str()));
    assert_eq!(world.states()["worker"], "STOPPED");
    fs::remove_file(world.tree.at("broken")).unwrap();
    world.done(&deploy);
    let second = world.tree.live().unwrap();
    assert_ne!(first, second);
    world.is_well(&second, &["web", "worker"]);
}

#[test]
fn hooks_go_around_each_restart_in_the_release() {
    let hooks = "[hooks]\ndrain = 'echo \"drain $RELEASECTL_PROGRAM $RELEASECTL_RELEASE\" >> ../../hooks'\n\
         undrain = 'echo \"undrain $RELEASECTL_PROGRAM ${HOSTNAME:+host}\" >> ../../hooks'\n";
    let world = World::of(Version::Debian, hooks);
    let conf = sleeper("web", "numprocs=2\nprocess_name=%(program_name)s_%(process_num)d");
    world.build("A", &conf, &[]);
    world.build("B", &conf, &[]);
    world.done("activate A");
    assert!(!Path::new(&world.tree.at("hooks")).exists());
    world.done("activate B");
    let seen = fs::read_to_string(world.tree.at("hooks")).unwrap();
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        ["drain web:web_0 B", "undrain web:web_0 host", "drain web:web_1 B", "undrain web:web_1 host"]
    );
    world.host(&hooks.replace("drain = 'echo", "drain = 'exit 1; echo"));
    world.build("C", &conf, &[]);
    let answer = world.ends(5, "activate C");
    assert!(answer.stderr.contains("drain hook failed"), "{}", answer.stderr);
    eventually("the programs are those of B", || world.states().values().all(|state| state == "RUNNING"));
    assert_eq!(world.tree.live().as_deref(), Some("B"));
}

#[test]
fn a_deploy_that_was_killed_while_programs_moved_is_gone_on_with() {
    let world = World::new();
    let slow = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done\n";
    let conf = script("one", "slow.sh", "priority=1") + &script("two", "slow.sh", "priority=2");
    let source = world.tree.source("app");
    fs::create_dir_all(source.join("services/supervisor")).unwrap();
    let conf = conf.replace("ROOT", world.tree.root().to_str().unwrap());
    fs::write(source.join("services/supervisor/app.conf"), conf).unwrap();
    fs::write(source.join("slow.sh"), slow).unwrap();
    let recipe = "[[step]]\nname = \"after\"\nrun = \"touch ../../finished\"\nphase = \"finish\"\n";
    fs::write(source.join("releasectl.toml"), recipe).unwrap();
    let deploy = format!("deploy {}", source.display());
    world.done(&deploy);
    fs::remove_file(world.tree.at("finished")).unwrap();
    let first = world.tree.live().unwrap();
    let mut child = world.command(&deploy).stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("a program is being moved", || world.states()["one"] != "RUNNING");
    child.kill().unwrap();
    child.wait().unwrap();
    let second = world.tree.live().unwrap();
    assert_ne!(first, second);
    assert!(!world.tree.at("finished").exists());
    world.done("deploy --resume");
    world.is_well(&second, &["one", "two"]);
    assert!(world.tree.at("finished").exists());
}

#[test]
fn a_tree_that_was_moved_is_wired_through_the_link_where_it_was() {
    let world = World::new();
    world.build("A", &sleeper("web", ""), &[]);
    world.done("activate A");
    let moved = world.tree.beside("moved");
    fs::rename(world.tree.root(), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, world.tree.root()).unwrap();
    assert_eq!(world.json(0, "supervisor status")["wired"], "include");
    world.build("B", &sleeper("web", ""), &[]);
    world.done("activate B");
    assert_eq!(world.states()["web"], "RUNNING");
}
