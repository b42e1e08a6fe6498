//! Environments from lock files.

use crate::sandbox::{Sandbox, Wheel, With, greeting, hello, uv};
use releasectl::python::{Made, PythonError};
use releasectl::recipe::PythonTable;
use std::fs;
use std::process::Command;

/// A pylock of the two packages, their files in the release.
fn pylock(hello: &Wheel) -> String {
    let package = |name: &str, version: &str, wheel: &Wheel| {
        format!(
            "[[packages]]\nname = '{name}'\nversion = '{version}'\nwheels = [{{ name = '{0}', path = 'wheelhouse/{0}', hashes = {{ sha256 = '{1}' }} }}]\n",
            wheel.file,
            wheel.sha256()
        )
    };
    format!(
        "lock-version = '1.0'\ncreated-by = 'hand'\n{}{}",
        package("hello", "1.0", hello),
        package("greeting", "1.0", &greeting())
    )
}

/// A release with the lock, no list and the wheels; the table has no wheelhouse.
fn locked(sandbox: &Sandbox, id: &str, name: &str, lock: &str) -> PythonTable {
    sandbox.offline_code(id, "");
    fs::remove_file(sandbox.release(id).join("requirements.txt")).unwrap();
    sandbox.code(id, &[(name, lock)]);
    PythonTable::default()
}

#[test]
fn a_pylock_is_installed_by_uv_and_by_pip_and_linked_next_time() {
    for with in [With::Uv, With::Pip] {
        let sandbox = Sandbox::new(with);
        let mut table = locked(&sandbox, "one", "pylock.toml", &pylock(&hello("1.0")));
        locked(&sandbox, "two", "pylock.toml", &pylock(&hello("1.0")));
        if with == With::Pip {
            table.wheelhouse = Some("wheelhouse".into());
        }
        sandbox.build("one", &table, &[]);
        assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"));
        assert_eq!(sandbox.build("two", &table, &["one"]).made, Made::Linked);
        assert!(sandbox.run("two", "hello", &[]).contains("releases/two"));
    }
}

#[test]
fn a_pylock_is_installed_from_a_wheelhouse() {
    for with in [With::Uv, With::Pip] {
        let sandbox = Sandbox::new(with);
        // Its files are at an address that cannot be reached.
        let lock = pylock(&hello("1.0")).replace("path = 'wheelhouse", "url = 'https://nowhere.invalid");
        let mut table = locked(&sandbox, "one", "pylock.toml", &lock);
        table.wheelhouse = Some("wheelhouse".into());
        sandbox.build("one", &table, &[]);
        assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"));
        assert!(!sandbox.release("one").join(".releasectl/python-requirements.txt").exists());
    }
}

#[test]
fn a_wrong_hash_in_a_pylock_is_refused() {
    for with in [With::Uv, With::Pip] {
        let sandbox = Sandbox::new(with);
        let lock = pylock(&hello("1.0")).replace(&greeting().sha256(), &"0".repeat(64));
        let mut table = locked(&sandbox, "one", "pylock.toml", &lock);
        for house in [None, Some("wheelhouse".into())] {
            table.wheelhouse = house;
            if with == With::Pip && table.wheelhouse.is_none() {
                continue;
            }
            let (built, printed) = sandbox.try_build("one", &table, &[]);
            assert!(built.unwrap_err().to_string().to_lowercase().contains("hash"), "{printed}");
        }
    }
}

/// A uv project locked against the wheels of its release.
fn project(sandbox: &Sandbox, id: &str) -> PythonTable {
    let head = "[project]\nname = 'project'\nversion = '1.0'\nrequires-python = '>=3.9'\ndependencies = ['hello==1.0']\n\
                [dependency-groups]\ndev = ['hello==2.0 ; python_version < \"3\"', 'unwanted']\n\
                [tool.uv]\nno-index = true\nfind-links = ['wheelhouse']\n";
    let table = locked(sandbox, id, "pyproject.toml", head);
    let unwanted = Wheel::new("unwanted", "1.0", "", &[("unwanted.py", "")]);
    sandbox.file(id, &format!("wheelhouse/{}", unwanted.file), &unwanted.bytes);
    let mut lock = Command::new(uv());
    lock.args(["lock", "--quiet", "--offline", "--python", crate::sandbox::PYTHON]).current_dir(sandbox.release(id));
    let locked = lock.env("UV_CACHE_DIR", sandbox.outside().join("cache")).output().unwrap();
    assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
    table
}

#[test]
fn a_uv_project_is_installed_by_its_lock_without_its_development_group() {
    let sandbox = Sandbox::new(With::Uv);
    let table = project(&sandbox, "one");
    project(&sandbox, "two");
    let built = sandbox.build("one", &table, &[]);
    assert_eq!(built.packages, 2);
    assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"));
    assert!(!sandbox.outcome("one", "python", &["-c", "import unwanted"]).status.success());
    assert_eq!(sandbox.build("two", &table, &["one"]).made, Made::Linked);
    assert!(sandbox.run("two", "hello", &[]).contains("releases/two"));
}

#[test]
fn a_uv_project_is_installed_from_a_wheelhouse() {
    let sandbox = Sandbox::new(With::Uv);
    let mut table = project(&sandbox, "one");
    table.wheelhouse = Some("wheelhouse".into());
    assert_eq!(sandbox.build("one", &table, &[]).packages, 2);
    assert!(sandbox.run("one", "hello", &[]).starts_with("hello 1.0"));
}

#[test]
fn a_uv_lock_without_uv_says_what_to_do() {
    let sandbox = Sandbox::new(With::Pip);
    let table = project(&sandbox, "one");
    let (built, _) = sandbox.try_build("one", &table, &[]);
    let error = built.unwrap_err();
    assert!(matches!(error, PythonError::NeedsUv { .. }), "{error}");
    let hint = error.hint().unwrap();
    // pip takes no hashes beside the project itself, which has none.
    assert!(hint.contains("install uv") && hint.contains("--no-hashes"), "{hint}");
    assert!(!sandbox.environment("one").exists());
}

#[test]
fn a_damaged_lock_is_named() {
    let sandbox = Sandbox::new(With::Uv);
    let table = locked(&sandbox, "one", "pylock.toml", "[[packages\n");
    let (built, _) = sandbox.try_build("one", &table, &[]);
    let error = built.unwrap_err();
    assert!(matches!(error, PythonError::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("pylock.toml"));
}
