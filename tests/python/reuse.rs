//! Environments linked from an earlier release.

use crate::sandbox::{Sandbox, Wheel, With, bytecode, greeting, hello, minor, naming, site, snapshot};
use releasectl::python::{self, Made};
use releasectl::recipe::PythonTable;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const OLD: &str = "2026-11-22_23.40";
const NEW: &str = "2026-11-22_23.40.17";

/// Two releases that ask for the same; the first is built.
fn same_twice(with: With) -> (Sandbox, PythonTable) {
    let sandbox = Sandbox::new(with);
    let table = sandbox.offline_code(OLD, "hello==1.0\n");
    sandbox.offline_code(NEW, "hello==1.0\n");
    sandbox.build(OLD, &table, &[]);
    (sandbox, table)
}

/// The second is built afresh, says why, and works.
fn built_afresh(sandbox: &Sandbox, table: &PythonTable, why: &str) {
    let built = sandbox.build(NEW, table, &[OLD]);
    assert_eq!(built.made, Made::Built);
    assert!(built.because.as_ref().is_some_and(|because| because.contains(why)), "{built:?}");
    let said = sandbox.run(NEW, "hello", &[]);
    assert!(said.contains(&sandbox.environment(NEW).display().to_string()), "{said}");
}

#[test]
fn the_same_request_is_linked_and_right_at_its_new_path() {
    for with in [With::Pip, With::Uv] {
        let (sandbox, table) = same_twice(with);
        let before = snapshot(&sandbox.environment(OLD));
        let linked = sandbox.build(NEW, &table, &[OLD]);
        assert_eq!((linked.made, linked.from.as_deref()), (Made::Linked, Some(OLD)));
        assert_eq!(snapshot(&sandbox.environment(OLD)), before, "the live release was changed");
        let environment = sandbox.environment(NEW);
        let said = sandbox.run(NEW, "hello", &[]);
        let wanted =
            format!("hello 1.0 {0} {0}/bin/hello {0}/{1}/hello/__init__.py", environment.display(), site().display());
        assert_eq!(said, wanted);
        assert_eq!(sandbox.run(NEW, "hello-raw.py", &[]), environment.display().to_string());
        let file = sandbox.run(NEW, "python", &["-c", "import hello; print(hello.where())"]);
        assert_eq!(Path::new(&file), environment.join(site()).join("hello/__init__.py"), "tracebacks show it");
        assert_eq!(python::alive(&sandbox.tools, &environment).unwrap(), linked.python);
        let after = snapshot(&environment);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        let twin = site().join("hello/__init__.py");
        assert_eq!(after[&twin].0, before[&twin].0, "it was not linked");
        assert_ne!(after[Path::new("bin/hello")].0, before[Path::new("bin/hello")].0, "a script is shared");
    }
}

#[test]
fn nothing_but_the_bytecode_of_the_venv_module_itself_names_the_old_path() {
    for with in [With::Pip, With::Uv] {
        let sandbox = Sandbox::new(with);
        let (old, new) = ("2026-11-22_23.40", "2026-11-23_09.15");
        let table = sandbox.offline_code(old, "hello==1.0\n");
        sandbox.offline_code(new, "hello==1.0\n");
        sandbox.build(old, &table, &[]);
        assert_eq!(sandbox.build(new, &table, &[old]).made, Made::Linked);
        let left = naming(&sandbox.environment(new), &sandbox.release(old));
        let own = |path: &PathBuf| {
            let brought = ["pip", "setuptools", "pkg_resources", "_distutils_hack"];
            with == With::Pip
                && path.extension().is_some_and(|end| end == "pyc")
                && brought.iter().any(|name| path.starts_with(site().join(name)))
        };
        let wrong: Vec<_> = left.iter().filter(|path| !own(path)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        for activate in ["bin/activate", "bin/activate.csh", "bin/activate.fish"] {
            let text = fs::read_to_string(sandbox.environment(new).join(activate)).unwrap();
            assert!(text.contains(&sandbox.environment(new).display().to_string()), "{activate}");
        }
    }
}

#[test]
fn an_environment_serves_generation_after_generation_and_outlives_the_first() {
    let (sandbox, table) = same_twice(With::Uv);
    sandbox.build(NEW, &table, &[OLD]);
    fs::remove_dir_all(sandbox.release(OLD)).unwrap();
    sandbox.offline_code("third", "hello==1.0\n");
    let third = sandbox.build("third", &table, &[NEW]);
    assert_eq!((third.made, third.from.as_deref()), (Made::Linked, Some(NEW)));
    fs::remove_dir_all(sandbox.release(NEW)).unwrap();
    assert!(sandbox.run("third", "hello", &[]).contains("releases/third/python_env/bin/hello"));
}

#[test]
fn other_requirements_are_built_afresh() {
    let (sandbox, table) = same_twice(With::Uv);
    sandbox.code(NEW, &[("requirements.txt", "hello==2.0\n")]);
    built_afresh(&sandbox, &table, "its requirements are others");
    assert!(sandbox.run(NEW, "hello", &[]).starts_with("hello 2.0"));
}

#[test]
fn an_environment_in_a_directory_that_only_it_has_is_built_afresh_and_linked_like_any_other() {
    let sandbox = Sandbox::new(With::Pip);
    let at = |directory: &str, id: &str, requirements: &str| {
        let table = sandbox.offline_code(id, requirements);
        PythonTable { directory: Some(directory.into()), ..table }
    };
    sandbox.build(OLD, &at("envs/of one/env", OLD, "hello==1.0\n"), &[]);
    let built = sandbox.build(NEW, &at("envs/of one/env", NEW, "hello==2.0\n"), &[OLD]);
    assert_eq!(built.made, Made::Built);
    let linked = sandbox.build("third", &at("envs/of one/env", "third", "hello==2.0\n"), &[NEW]);
    assert_eq!(linked.made, Made::Linked);
    let built = sandbox.build("fourth", &at("envs/two", "fourth", "hello==2.0\n"), &["third"]);
    assert_eq!(built.made, Made::Built);
}

#[test]
fn another_interpreter_means_afresh() {
    let (mut sandbox, table) = same_twice(With::Uv);
    let own = sandbox.outside().join("python/bin");
    fs::create_dir_all(&own).unwrap();
    fs::copy(fs::canonicalize(crate::sandbox::PYTHON).unwrap(), own.join("python3")).unwrap();
    sandbox.look_in(Some(own));
    built_afresh(&sandbox, &table, &format!("it was made with Python {}", minor()));
}

#[test]
fn an_upgraded_interpreter_means_afresh() {
    let (sandbox, table) = same_twice(With::Uv);
    let record = sandbox.release(OLD).join(".releasectl/python.json");
    let text = fs::read_to_string(&record).unwrap();
    let own = format!("\"python\":\"{}.", minor());
    fs::write(&record, text.replace(&own, &format!("{own}9"))).unwrap();
    built_afresh(&sandbox, &table, &format!("it was made with Python {}.9", minor()));
}

/// What was done, and doing it below the site directory.
type Change = (&'static str, fn(&Path));

#[test]
fn an_environment_that_was_changed_by_hand_is_not_linked() {
    let changes: [Change; 6] = [
        ("a file was edited", |site| fs::write(site.join("greeting.py"), "def greet(n): return n\n").unwrap()),
        ("a file was touched", |site| {
            let file = fs::File::options().append(true).open(site.join("greeting.py")).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("a file was added", |site| fs::write(site.join("extra.py"), "").unwrap()),
        ("a file was removed", |site| fs::remove_file(site.join("hello/template.py")).unwrap()),
        ("a mode was changed", |site| {
            fs::set_permissions(site.join("greeting.py"), PermissionsExt::from_mode(0o600)).unwrap();
        }),
        ("a file became a link", |site| {
            fs::rename(site.join("greeting.py"), site.join("hello/moved")).unwrap();
            symlink("hello/moved", site.join("greeting.py")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let (sandbox, table) = same_twice(With::Uv);
        let site = sandbox.environment(OLD).join(site());
        // What uv linked is shared with its cache: give the release a file of its own to be changed.
        let text = fs::read(site.join("greeting.py")).unwrap();
        let time = fs::metadata(site.join("greeting.py")).unwrap().modified().unwrap();
        fs::remove_file(site.join("greeting.py")).unwrap();
        fs::write(site.join("greeting.py"), text).unwrap();
        fs::File::options().append(true).open(site.join("greeting.py")).unwrap().set_modified(time).unwrap();
        change(&site);
        eprintln!("{what}");
        built_afresh(&sandbox, &table, "changed since it was made");
    }
}

#[test]
fn an_unfinished_environment_is_not_linked() {
    let (sandbox, table) = same_twice(With::Uv);
    let record = sandbox.release(OLD).join(".releasectl/python.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"finished\":true", "\"finished\":false")).unwrap();
    built_afresh(&sandbox, &table, "was not finished");
    fs::remove_file(&record).unwrap();
    fs::remove_dir_all(sandbox.release(NEW)).unwrap();
    sandbox.offline_code(NEW, "hello==1.0\n");
    built_afresh(&sandbox, &table, "no environment of ours");
}

#[test]
fn a_moved_release_is_not_linked() {
    let (sandbox, table) = same_twice(With::Uv);
    fs::rename(sandbox.release(OLD), sandbox.release("moved")).unwrap();
    let built = sandbox.build(NEW, &table, &["moved"]);
    assert!(built.because.unwrap().contains("it was made at"));
}

#[test]
fn a_dead_environment_is_not_linked() {
    let (sandbox, table) = same_twice(With::Uv);
    // An interpreter that runs and is another one is as bad as none.
    let python = sandbox.environment(OLD).join("bin/python");
    let record = sandbox.release(OLD).join(".releasectl/python.json");
    assert!(record.exists());
    fs::remove_file(&python).unwrap();
    symlink("/bin/true", &python).unwrap();
    built_afresh(&sandbox, &table, "changed since it was made");
}

#[test]
fn the_second_best_serves_if_the_best_does_not() {
    let (sandbox, table) = same_twice(With::Uv);
    sandbox.offline_code("other", "hello==2.0\n");
    sandbox.build("other", &table, &[OLD]);
    let (linked, printed) = sandbox.try_build(NEW, &table, &["other", OLD]);
    let linked = linked.unwrap();
    assert!(!printed.contains("afresh"), "{printed}");
    assert_eq!((linked.made, linked.from.as_deref(), linked.because), (Made::Linked, Some(OLD), None));
}

#[test]
fn unchanged_packages_of_a_changed_list_keep_their_bytecode() {
    let sandbox = Sandbox::new(With::Uv);
    // Wheels that lie outside the release are kept in uv's cache, as those of an index are.
    sandbox.offline_code("wheels", "");
    let house = sandbox.release("wheels").join("wheelhouse");
    for (id, version) in [(OLD, "1.0"), (NEW, "2.0")] {
        let list = format!("--no-index\n--find-links {}\nhello=={version}\n", house.display());
        sandbox.code(id, &[("requirements.txt", &list)]);
    }
    let table = PythonTable::default();
    sandbox.build(OLD, &table, &[]);
    sandbox.build(NEW, &table, &[OLD]);
    let inode = |id: &str, file: &str| {
        let path = sandbox.environment(id).join(site()).join(file);
        path.symlink_metadata().unwrap().ino()
    };
    let unchanged = bytecode("greeting");
    assert_eq!(inode(OLD, &unchanged), inode(NEW, &unchanged));
    let changed = format!("hello/{}", bytecode("__init__"));
    assert_ne!(inode(OLD, &changed), inode(NEW, &changed));
    assert!(sandbox.run(NEW, "hello", &[]).starts_with("hello 2.0"));
}

#[test]
fn on_another_file_system_the_environment_is_copied() {
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let sandbox = Sandbox::new(With::Uv);
    if fs::metadata(elsewhere.path()).unwrap().dev() == fs::metadata(sandbox.outside()).unwrap().dev() {
        eprintln!("skipped: there is no second file system");
        return;
    }
    let table = sandbox.offline_code(OLD, "hello==1.0\n");
    sandbox.build(OLD, &table, &[]);
    fs::create_dir(elsewhere.path().join(NEW)).unwrap();
    // A release path may be a link; then its environment is known by two paths.
    symlink(elsewhere.path().join(NEW), sandbox.release("link")).unwrap();
    let real = fs::canonicalize(sandbox.release("link")).unwrap();
    sandbox.offline_code("link", "hello==1.0\n");
    let release = releasectl::directory::Dir::open(&real).unwrap();
    let plan = python::plan(&release, &table).unwrap().unwrap();
    let previous = [releasectl::directory::Dir::open(&sandbox.release(OLD)).unwrap()];
    let cache = sandbox.root.join(".releasectl/cache");
    let order =
        python::Order { plan: &plan, release: &release, previous: &previous, cache: &cache, tools: &sandbox.tools };
    let built = python::build(&order, &mut |_| Ok(())).unwrap();
    let made = built.finish(&release).unwrap();
    assert_eq!(made.made, Made::Linked, "{made:?}");
    let twin = |root: &Path| fs::metadata(root.join("python_env").join(site()).join("greeting.py")).unwrap();
    assert_eq!(twin(&real).modified().unwrap(), twin(&sandbox.release(OLD)).modified().unwrap());
    let before = snapshot(&real);
    assert!(sandbox.run("link", "hello", &[]).contains(&real.display().to_string()));
    assert_eq!(snapshot(&real), before, "its bytecode was not good");
}

#[test]
fn a_root_reached_through_a_link_is_known_by_both_names() {
    let mut sandbox = Sandbox::new(With::Pip);
    let linked = sandbox.outside().join("linked");
    symlink(&sandbox.root, &linked).unwrap();
    let real = std::mem::replace(&mut sandbox.root, linked);
    let table = sandbox.offline_code("one", "hello==1.0\n");
    sandbox.offline_code("two", "hello==1.0\n");
    sandbox.build("one", &table, &[]);
    let note = sandbox.environment("one").join("bin/note");
    assert!(!note.exists());
    assert_eq!(sandbox.build("two", &table, &["one"]).made, Made::Linked);
    for root in [&real, &sandbox.root] {
        let left = naming(&sandbox.environment("two").join("bin"), &root.join("releases/one"));
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(sandbox.run("two", "hello", &[]).contains("releases/two/"));
}

#[test]
fn a_path_that_would_be_written_differently_is_built_afresh() {
    for with in [With::Pip, With::Uv] {
        let mut sandbox = Sandbox::new(with);
        sandbox.root = sandbox.outside().join("a path with blanks");
        fs::create_dir_all(sandbox.root.join("releases")).unwrap();
        let table = sandbox.offline_code(OLD, "hello==1.0\n");
        sandbox.offline_code(NEW, "hello==1.0\n");
        sandbox.build(OLD, &table, &[]);
        built_afresh(&sandbox, &table, "cannot be shared");
    }
}

/// A build backend that makes an editable wheel: a path file to the project, a finder that names it, nothing else.
fn backend() -> Wheel {
    let code = r#"
import os, zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "project-1.0-py3-none-any.whl"
    own = "project-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("__editable__.project.pth", os.getcwd() + "/src\n")
        wheel.writestr("__editable___project_finder.py", "MAPPING = {'project': %r}\n" % os.getcwd())
        wheel.writestr(own + "METADATA", "Metadata-Version: 2.1\nName: project\nVersion: 1.0\n")
        wheel.writestr(own + "WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(own + "RECORD", "".join(n + ",,\n" for n in wheel.namelist()) + own + "RECORD,,\n")
    return name
build_wheel = build_editable
"#;
    Wheel::new("hatchling", "1.0", "", &[("hatchling/__init__.py", ""), ("hatchling/build.py", code)])
}

fn project(sandbox: &Sandbox, id: &str, answer: &str) -> PythonTable {
    let table = sandbox.offline_code(id, "greeting\n-e .\n");
    let head = "[project]\nname = 'project'\nversion = '1.0'\n[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n";
    sandbox.code(id, &[("pyproject.toml", head), ("src/project.py", &format!("ANSWER = '{answer}'\n"))]);
    let backend = backend();
    sandbox.file(id, &format!("wheelhouse/{}", backend.file), &backend.bytes);
    table
}

#[test]
fn an_editable_project_is_the_one_of_its_own_release() {
    for with in [With::Pip, With::Uv] {
        let sandbox = Sandbox::new(with);
        let table = project(&sandbox, OLD, "old");
        project(&sandbox, NEW, "new");
        sandbox.build(OLD, &table, &[]);
        let linked = sandbox.build(NEW, &table, &[OLD]);
        assert_eq!(linked.made, Made::Linked, "{linked:?}");
        let question =
            ["-c", "import project, __editable___project_finder as f; print(project.ANSWER, f.MAPPING['project'])"];
        let before = snapshot(&sandbox.environment(NEW));
        for (id, answer) in [(OLD, "old"), (NEW, "new")] {
            assert_eq!(sandbox.run(id, "python", &question), format!("{answer} {}", sandbox.release(id).display()));
        }
        assert_eq!(snapshot(&sandbox.environment(NEW)), before, "the finder was not compiled again");
        let direct = site().join("project-1.0.dist-info/direct_url.json");
        let direct = fs::read_to_string(sandbox.environment(NEW).join(direct)).unwrap();
        assert!(direct.contains(&format!("file://{}\"", sandbox.release(NEW).display())), "{direct}");
    }
}

#[test]
fn a_project_that_runs_code_to_be_built_binds_the_environment_to_its_release() {
    let sandbox = Sandbox::new(With::Uv);
    let table = project(&sandbox, OLD, "old");
    project(&sandbox, NEW, "new");
    for id in [OLD, NEW] {
        sandbox.code(id, &[("setup.py", "")]);
    }
    sandbox.build(OLD, &table, &[]);
    let built = sandbox.build(NEW, &table, &[OLD]);
    assert_eq!(built.made, Made::Built);
    assert!(built.because.unwrap().contains("depends on more than pyproject.toml"));
}

#[test]
fn a_project_that_moves_into_src_is_installed_anew() {
    let sandbox = Sandbox::new(With::Uv);
    let table = project(&sandbox, OLD, "old");
    project(&sandbox, NEW, "new");
    fs::rename(sandbox.release(OLD).join("src/project.py"), sandbox.release(OLD).join("project.py")).unwrap();
    fs::remove_dir(sandbox.release(OLD).join("src")).unwrap();
    sandbox.build(OLD, &table, &[]);
    assert_eq!(sandbox.build(NEW, &table, &[OLD]).made, Made::Built);
}

#[test]
fn a_directory_of_code_that_is_copied_in_is_always_the_release_s_own() {
    let sandbox = Sandbox::new(With::Uv);
    let table = project(&sandbox, OLD, "old");
    project(&sandbox, NEW, "new");
    for id in [OLD, NEW] {
        sandbox.code(id, &[("requirements.txt", "greeting\n./\n")]);
    }
    sandbox.build(OLD, &table, &[]);
    assert!(sandbox.build(NEW, &table, &[OLD]).because.unwrap().contains("a directory of code"));
}

#[test]
fn wheels_that_changed_under_the_same_name_are_installed_again() {
    let (sandbox, table) = same_twice(With::Uv);
    let other =
        Wheel::new("greeting", "1.0", "", &[("greeting.py", "def greet(name):\n    return 'good day ' + name\n")]);
    sandbox.file(NEW, &format!("wheelhouse/{}", other.file), &other.bytes);
    assert_ne!(greeting().sha256(), other.sha256());
    let built = sandbox.build(NEW, &table, &[OLD]);
    assert_eq!(built.made, Made::Built);
    assert!(sandbox.run(NEW, "hello", &[]).starts_with("good day 1.0"), "{}", hello("1.0").file);
}
