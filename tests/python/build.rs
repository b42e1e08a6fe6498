//! Environments built afresh.

use crate::sandbox::{PYTHON, Sandbox, Wheel, With, bytecode, greeting, hello, minor, naming, site, snapshot};
use releasectl::directory::Dir;
use releasectl::python::{self, Installer, Made, PythonError};
use releasectl::recipe::PythonTable;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const BOTH: [(With, Installer); 2] = [(With::Pip, Installer::Pip), (With::Uv, Installer::Uv)];

#[test]
fn pip_and_uv_build_at_the_final_path_from_a_wheelhouse() {
    for (with, installer) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", "hello==1.0\n");
        let built = sandbox.build("one", &table, &[]);
        assert_eq!((built.made, built.installer), (Made::Built, installer));
        assert!(built.digest.starts_with("sha256:") && built.interpreter.is_absolute(), "{built:?}");
        let environment = sandbox.environment("one");
        let said = sandbox.run("one", "hello", &[]);
        assert!(said.starts_with(&format!("hello 1.0 {}", environment.display())), "{said}");
        assert_eq!(sandbox.run("one", "hello-raw.py", &[]), environment.display().to_string());
        assert_eq!(python::alive(&sandbox.tools, &environment).unwrap(), built.python);
        let state = fs::read_dir(sandbox.release("one").join(".releasectl")).unwrap();
        assert_eq!(state.count(), 1, "more than the record is left");
    }
}

#[test]
fn everything_is_compiled_and_bytecode_names_no_release() {
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", "hello==1.0\n");
        sandbox.build("one", &table, &[]);
        let before = snapshot(&sandbox.environment("one"));
        sandbox.run("one", "hello", &[]);
        assert_eq!(snapshot(&sandbox.environment("one")), before, "the first run wrote something");
        let packages = sandbox.environment("one").join(site());
        assert!(packages.join("hello").join(bytecode("__init__")).exists());
        assert!(!packages.join("hello").join(bytecode("template")).exists(), "no Python was compiled");
        let named = naming(&packages, &sandbox.release("one"));
        let named: Vec<_> =
            named.iter().filter(|path| !path.starts_with("pip") && !path.starts_with("setuptools")).collect();
        assert!(named.iter().all(|path| !path.ends_with(".pyc") || path.starts_with("pkg_resources")), "{named:?}");
    }
}

#[test]
fn tracebacks_give_the_real_path() {
    let sandbox = Sandbox::new(With::Uv);
    let table = sandbox.offline_code("one", "hello==1.0\n");
    sandbox.build("one", &table, &[]);
    let file = sandbox.run("one", "python", &["-c", "import hello; print(hello.where())"]);
    assert_eq!(Path::new(&file), sandbox.environment("one").join(site()).join("hello/__init__.py"));
}

#[test]
fn right_hashes_are_accepted_and_a_wrong_one_is_refused() {
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let right = hello("1.0").pinned() + &greeting().pinned();
        let table = sandbox.offline_code("right", &right);
        sandbox.build("right", &table, &[]);
        assert!(sandbox.run("right", "hello", &[]).starts_with("hello 1.0"));
        let live = snapshot(&sandbox.release("right"));
        let table = sandbox.offline_code("wrong", &right.replace(&greeting().sha256(), &hello("1.0").sha256()));
        let (built, printed) = sandbox.try_build("wrong", &table, &["right"]);
        let message = built.unwrap_err().to_string();
        assert!(message.to_lowercase().contains("hash"), "{message}\n{printed}");
        assert_eq!(snapshot(&sandbox.release("right")), live);
    }
}

#[test]
fn a_list_without_its_dependencies_is_completed_by_uv_as_by_pip() {
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", "hello\n");
        let built = sandbox.build("one", &table, &[]);
        assert!(sandbox.run("one", "hello", &[]).starts_with("hello 2.0"), "the newest is taken");
        assert!(built.packages >= 2);
    }
}

#[test]
fn a_hashed_list_without_its_dependencies_is_refused_by_uv_as_by_pip() {
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", &hello("1.0").pinned());
        let (built, _) = sandbox.try_build("one", &table, &[]);
        assert!(built.is_err());
    }
}

#[test]
fn what_pip_is_told_to_do_elsewhere_is_not_done_to_an_environment() {
    let sandbox = Sandbox::new(With::Pip);
    sandbox.offline_code("one", "--no-index\n--find-links wheelhouse\nhello==1.0\n");
    let told = sandbox.outside().join("home/.config/pip");
    fs::create_dir_all(&told).unwrap();
    for wish in ["user = true", "dry-run = true", "target = elsewhere"] {
        fs::write(told.join("pip.conf"), format!("[install]\n{wish}\n")).unwrap();
        sandbox.build("one", &PythonTable::default(), &[]);
        assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"), "{wish}");
        fs::remove_dir_all(sandbox.environment("one")).unwrap();
    }
}

#[test]
fn code_that_is_called_like_a_module_of_python_is_not_run_in_its_place() {
    for (with, installer) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", "hello==1.0\n");
        let own = "raise SystemExit('this is the application')\n";
        sandbox.code("one", &[("token.py", own), ("secrets.py", own), ("pip/__init__.py", own)]);
        assert_eq!(sandbox.build("one", &table, &[]).installer, installer);
        assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0 "));
    }
}

#[test]
fn a_wheelhouse_needs_no_network_at_all() {
    let mut unshare = Command::new("unshare");
    unshare.arg(if nix::unistd::geteuid().is_root() { "-n" } else { "-rn" });
    if !unshare.arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: network namespaces are not to be had here");
        return;
    }
    if std::env::var_os("WITHOUT_NETWORK").is_none() {
        crate::sandbox::uv();
        let mut unshare = Command::new("unshare");
        unshare.arg(if nix::unistd::geteuid().is_root() { "-n" } else { "-rn" }).arg(std::env::current_exe().unwrap());
        unshare.args(["--exact", "build::a_wheelhouse_needs_no_network_at_all"]).env("WITHOUT_NETWORK", "1");
        let output = unshare.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    assert!(fs::read_to_string("/proc/net/route").unwrap().lines().count() <= 1, "there are routes");
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", &(hello("1.0").pinned() + &greeting().pinned()));
        sandbox.build("one", &table, &[]);
        assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"));
    }
}

#[test]
fn what_is_not_in_the_wheelhouse_is_not_looked_for_elsewhere() {
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let table = sandbox.offline_code("one", "six==1.16.0\n");
        let (built, printed) = sandbox.try_build("one", &table, &[]);
        assert!(built.unwrap_err().to_string().contains("six"), "{printed}");
    }
}

#[test]
fn nothing_asked_for_is_no_environment() {
    let sandbox = Sandbox::new(With::Pip);
    sandbox.code("one", &[("manage.py", "")]);
    let release = Dir::open(&sandbox.release("one")).unwrap();
    assert_eq!(python::plan(&release, &PythonTable::default()).unwrap(), None);
}

#[test]
fn a_lock_is_found_before_a_list() {
    let sandbox = Sandbox::new(With::Pip);
    let files =
        [("requirements/prod-requirements.txt", ""), ("requirements.txt", ""), ("pylock.toml", ""), ("uv.lock", "")];
    let release = || Dir::open(&sandbox.release("one")).unwrap();
    for (at, file) in files.iter().enumerate() {
        sandbox.code("one", &[*file, ("pyproject.toml", "")]);
        let found = python::plan(&release(), &PythonTable::default()).unwrap().unwrap();
        assert_eq!(found.files, [Path::new(files[at].0)]);
    }
    let both =
        PythonTable { requirements: vec!["uv.lock".into(), "requirements.txt".into()], ..PythonTable::default() };
    assert!(matches!(python::plan(&release(), &both), Err(PythonError::Alone { .. })));
}

#[test]
fn the_digest_covers_what_is_included_and_the_wheels() {
    let sandbox = Sandbox::new(With::Pip);
    let table = sandbox.offline_code("one", "-r more/base.txt\nhello\n");
    sandbox.code("one", &[("more/base.txt", "-c ../limits.txt\ngreeting\n"), ("limits.txt", "hello<2\n")]);
    let digest = || python::plan(&Dir::open(&sandbox.release("one")).unwrap(), &table).unwrap().unwrap().digest;
    let first = digest();
    assert_eq!(digest(), first);
    let mut all = vec![first];
    sandbox.code("one", &[("limits.txt", "hello<3\n")]);
    all.push(digest());
    let other = Wheel::new("greeting", "1.0", "", &[("greeting.py", "")]);
    sandbox.file("one", &format!("wheelhouse/{}", other.file), &other.bytes);
    all.push(digest());
    sandbox.file("one", "wheelhouse/another-1-py3-none-any.whl", b"");
    all.push(digest());
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn the_digest_covers_wheels_however_they_are_reached_or_serves_one_release() {
    let sandbox = Sandbox::new(With::Pip);
    let table = sandbox.offline_code("one", "greeting\n");
    let plan = || python::plan(&Dir::open(&sandbox.release("one")).unwrap(), &table).unwrap().unwrap();
    sandbox.file("one", "kept/one.whl", b"1");
    let link = sandbox.release("one").join("wheelhouse/linked-1-py3-none-any.whl");
    let mut digests = vec![plan().digest];
    symlink("../kept/one.whl", &link).unwrap();
    digests.push(plan().digest);
    for direct in ["greeting\n", "linked@./kept/one.whl\n", "--no-index --find-links kept\n"] {
        sandbox.code("one", &[("requirements.txt", direct)]);
        for content in [b"2", b"3"] {
            sandbox.file("one", "kept/one.whl", content);
            digests.push(plan().digest);
            assert_eq!(plan().bound, None, "{direct}");
        }
        let _ = fs::remove_file(&link);
    }
    let told = [
        ("uv.toml", "find-links = ['kept']\n"),
        ("uv.toml", "[[index]]\nurl = 'kept'\nformat = 'flat'\n"),
        ("pyproject.toml", "[tool.uv.pip]\nfind-links = ['kept']\n"),
    ];
    for (file, text) in told {
        sandbox.code("one", &[("requirements.txt", "linked\n"), (file, text)]);
        for content in [b"2", b"3"] {
            sandbox.file("one", "kept/one.whl", content);
            digests.push(plan().digest);
            assert_eq!(plan().bound, None, "{text}");
        }
        fs::remove_file(sandbox.release("one").join(file)).unwrap();
    }
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count);
    // What the installer finds and we do not.
    for elsewhere in ["linked @ file://${PROJECT_ROOT}/kept/one.whl\n", "linked@file:///srv/one.whl\n"] {
        sandbox.code("one", &[("requirements.txt", elsewhere)]);
        assert!(plan().bound.is_some(), "{elsewhere}");
    }
    sandbox.code("one", &[("requirements.txt", "greeting\n")]);
    symlink("/srv/one.whl", &link).unwrap();
    assert!(plan().bound.is_some());
}

#[test]
fn what_cannot_be_read_here_serves_one_release() {
    let sandbox = Sandbox::new(With::Pip);
    let table = sandbox.offline_code("one", "");
    let wide = "\u{feff}-r base.txt\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    sandbox.file("one", "requirements.txt", &wide);
    let plan = python::plan(&Dir::open(&sandbox.release("one")).unwrap(), &table).unwrap().unwrap();
    assert_eq!(plan.bound.as_deref(), Some("requirements.txt is not UTF-8"));
}

#[test]
fn a_password_in_what_is_included_is_in_no_reason() {
    let sandbox = Sandbox::new(With::Pip);
    let table = sandbox.offline_code("one", "-r https://bob:s3cret@h.example/all.txt\n");
    let plan = python::plan(&Dir::open(&sandbox.release("one")).unwrap(), &table).unwrap().unwrap();
    assert_eq!(plan.bound.as_deref(), Some("requirements.txt includes https://bob:***@h.example/all.txt"));
}

#[test]
fn links_are_followed_inside_the_release_only() {
    let sandbox = Sandbox::new(With::Pip);
    sandbox.code("one", &[("requirements/all.txt", "greeting\n")]);
    fs::write(sandbox.outside().join("secret.txt"), "").unwrap();
    let at = |name: &str| sandbox.release("one").join(name);
    symlink("requirements/all.txt", at("requirements.txt")).unwrap();
    symlink("../../../../../secret.txt", at("up.txt")).unwrap();
    symlink(sandbox.outside().join("secret.txt"), at("absolute.txt")).unwrap();
    let release = Dir::open(&sandbox.release("one")).unwrap();
    let plan = |file: &str| {
        let table = PythonTable { requirements: vec![file.into()], ..PythonTable::default() };
        python::plan(&release, &table)
    };
    assert!(plan("requirements.txt").is_ok());
    for outside in ["up.txt", "absolute.txt", "../one/requirements.txt", "/etc/hostname"] {
        assert!(matches!(plan(outside), Err(PythonError::Outside { .. })), "{outside}");
    }
    assert!(matches!(plan("absent.txt"), Err(PythonError::Missing { .. })));
    let table = PythonTable { wheelhouse: Some("wheels".into()), ..PythonTable::default() };
    assert!(matches!(python::plan(&release, &table), Err(PythonError::Missing { .. })));
}

#[test]
fn what_an_interrupted_build_left_is_replaced_and_a_finished_one_is_kept() {
    let sandbox = Sandbox::new(With::Uv);
    let table = sandbox.offline_code("one", "hello==1.0\n");
    sandbox.build("one", &table, &[]);
    let whole = snapshot(&sandbox.environment("one"));
    sandbox.build("one", &table, &[]);
    assert_eq!(snapshot(&sandbox.environment("one")), whole, "it was there already");
    let record = sandbox.release("one").join(".releasectl/python.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"finished\":true", "\"finished\":false")).unwrap();
    fs::remove_file(sandbox.environment("one").join("pyvenv.cfg")).unwrap();
    fs::write(sandbox.environment("one").join("left"), "").unwrap();
    sandbox.build("one", &table, &[]);
    assert!(!sandbox.environment("one").join("left").exists());
    assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"));
}

#[test]
fn what_is_no_environment_is_never_removed() {
    let sandbox = Sandbox::new(With::Uv);
    let table = sandbox.offline_code("one", "hello==1.0\n");
    sandbox.code("one", &[("python_env/precious.txt", "x")]);
    let (built, _) = sandbox.try_build("one", &table, &[]);
    assert!(matches!(built, Err(PythonError::Occupied { .. })));
    fs::remove_file(sandbox.environment("one").join("precious.txt")).unwrap();
    fs::remove_dir(sandbox.environment("one")).unwrap();
    symlink(sandbox.outside(), sandbox.environment("one")).unwrap();
    let (built, _) = sandbox.try_build("one", &table, &[]);
    assert!(matches!(built, Err(PythonError::Occupied { .. })), "a link is no environment");
}

#[test]
fn a_dead_interpreter_is_noticed_and_said() {
    for (with, _) in BOTH {
        let mut sandbox = Sandbox::new(with);
        let own = sandbox.outside().join("python/bin");
        sandbox.install(&fs::canonicalize(PYTHON).unwrap(), &own.join("python3"));
        sandbox.look_in(Some(own.clone()));
        let table = sandbox.offline_code("one", "hello==1.0\n");
        let built = sandbox.build("one", &table, &[]);
        assert_eq!(built.interpreter, own.join("python3"));
        fs::remove_file(own.join("python3")).unwrap();
        let dead = python::alive(&sandbox.tools, &sandbox.environment("one")).unwrap_err();
        assert!(matches!(dead, PythonError::Dead { .. }));
        assert!(dead.hint().unwrap().contains("deploy again"), "{dead}");
        sandbox.script(&own.join("python3"), "exec sleep 60");
        let hung = python::alive(&sandbox.tools, &sandbox.environment("one")).unwrap_err();
        assert!(hung.to_string().contains("did not end within 10 s"), "{hung}");
    }
}

#[test]
fn an_interpreter_that_is_there_but_does_not_answer_is_not_called_missing() {
    for (with, _) in BOTH {
        let mut sandbox = Sandbox::new(with);
        let own = sandbox.outside().join("bin");
        sandbox.script(&own.join("python3.99"), "echo pyenv: 3.99 is not chosen; exit 127");
        sandbox.look_in(Some(own));
        let mut table = sandbox.offline_code("one", "hello==1.0\n");
        table.version = Some("3.99".into());
        let (built, _) = sandbox.try_build("one", &table, &[]);
        let error = built.unwrap_err().to_string();
        assert!(error.starts_with("Python 3.99 does not answer: python3.99 failed"), "{error}");
        assert!(error.ends_with("\npyenv: 3.99 is not chosen"), "{error}");
    }
}

#[test]
fn what_is_said_beside_an_answer_is_none_of_it() {
    for (with, _) in BOTH {
        let mut sandbox = Sandbox::new(with);
        let own = sandbox.outside().join("bin");
        let shell = "echo 'sh: warning: setlocale: LC_ALL: cannot change locale' >&2; exec /usr/bin/python3 \"$@\"";
        sandbox.script(&own.join("python3"), shell);
        sandbox.look_in(Some(own));
        let table = sandbox.offline_code("one", "hello==1.0\n");
        let built = sandbox.build("one", &table, &[]);
        assert_eq!(built.interpreter, fs::canonicalize(PYTHON).unwrap());
        // An uninstalled package leaves such a file; Python complains at every start, and works.
        let packages = sandbox.environment("one").join(site());
        fs::write(packages.join("hack.pth"), "import sys; sys.stdout.write('hi')\nimport a_module_that_is_gone\n")
            .unwrap();
        assert_eq!(python::alive(&sandbox.tools, &sandbox.environment("one")).unwrap(), built.python);
    }
}

#[test]
fn a_copied_environment_is_dead_because_it_belongs_elsewhere() {
    let sandbox = Sandbox::new(With::Pip);
    let table = sandbox.offline_code("one", "greeting\n");
    sandbox.build("one", &table, &[]);
    fs::remove_file(sandbox.environment("one").join("pyvenv.cfg")).unwrap();
    let dead = python::alive(&sandbox.tools, &sandbox.environment("one")).unwrap_err();
    assert!(dead.to_string().contains("takes /usr for its environment"), "{dead}");
}

#[test]
fn a_version_that_is_not_here_is_refused_with_a_hint() {
    for (with, _) in BOTH {
        let sandbox = Sandbox::new(with);
        let mut table = sandbox.offline_code("one", "hello==1.0\n");
        table.version = Some("3.99".into());
        let (built, _) = sandbox.try_build("one", &table, &[]);
        let error = built.unwrap_err();
        assert!(matches!(error, PythonError::NoInterpreter { .. }), "{error}");
        assert!(error.hint().unwrap().contains("python3.99"));
        table.version = Some(minor().into());
        assert!(sandbox.build("one", &table, &[]).python.starts_with(&format!("{}.", minor())));
    }
}

#[test]
fn what_was_edited_in_place_does_not_come_back_out_of_uvs_cache() {
    for version in ["1.0", "2.0"] {
        let sandbox = Sandbox::new(With::Uv);
        // Wheels that lie outside the release are kept in uv's cache, as those of an index are.
        sandbox.offline_code("wheels", "");
        let house = sandbox.release("wheels").join("wheelhouse");
        for (id, version) in [("A", "1.0"), ("B", version)] {
            let list = format!("--no-index\n--find-links {}\nhello=={version}\n", house.display());
            sandbox.code(id, &[("requirements.txt", &list)]);
        }
        sandbox.build("A", &PythonTable::default(), &[]);
        let greeting = |id: &str| sandbox.environment(id).join(site()).join("greeting.py");
        let text = fs::read_to_string(greeting("A")).unwrap();
        // Files are stamped in ticks of some milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::write(greeting("A"), text.clone() + "print('what is it here?')\n").unwrap();
        let (built, printed) = sandbox.try_build("B", &PythonTable::default(), &["A"]);
        assert_eq!(built.unwrap().made, Made::Built);
        assert!(printed.contains("uv's cache is emptied"), "{printed}");
        assert_eq!(fs::read_to_string(greeting("B")).unwrap(), text);
    }
}

#[test]
fn uvs_cache_outlives_an_environment_that_is_gone_and_not_one_that_cannot_be_looked_through() {
    for in_the_way in [false, true] {
        let sandbox = Sandbox::new(With::Uv);
        sandbox.offline_code("wheels", "");
        let house = sandbox.release("wheels").join("wheelhouse");
        for (id, version) in [("A", "1.0"), ("B", "2.0")] {
            let list = format!("--no-index\n--find-links {}\nhello=={version}\n", house.display());
            sandbox.code(id, &[("requirements.txt", &list)]);
        }
        sandbox.build("A", &PythonTable::default(), &[]);
        fs::remove_dir_all(sandbox.environment("A")).unwrap();
        if in_the_way {
            fs::write(sandbox.environment("A"), "").unwrap();
        }
        let (built, printed) = sandbox.try_build("B", &PythonTable::default(), &["A"]);
        assert_eq!(built.unwrap().made, Made::Built);
        assert_eq!(printed.contains("uv's cache is emptied"), in_the_way, "{printed}");
    }
}
