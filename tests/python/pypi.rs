//! The same with packages as they are: from PyPI.

use crate::sandbox::{Sandbox, With, minor};
use releasectl::python::Made;
use releasectl::recipe::PythonTable;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

fn reachable() -> bool {
    let addresses = "pypi.org:443".to_socket_addrs().into_iter().flatten();
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok())
}

#[test]
fn django_is_built_once_and_linked_afterwards() {
    if !reachable() {
        eprintln!("skipped: PyPI cannot be reached");
        return;
    }
    for with in [With::Pip, With::Uv] {
        let sandbox = Sandbox::new(with);
        // What it depends on is left to be found.
        for id in ["one", "two"] {
            sandbox.code(id, &[("requirements/prod-requirements.txt", "Django==5.0.6\ngunicorn==22.0.0\n")]);
        }
        let table = PythonTable { version: Some(minor().into()), ..PythonTable::default() };
        sandbox.build("one", &table, &[]);
        let linked = sandbox.build("two", &table, &["one"]);
        assert_eq!(linked.made, Made::Linked, "{linked:?}");
        let prefix = "import sys, django, asgiref; print(django.__version__, sys.prefix)";
        for id in ["one", "two"] {
            let wanted = format!("5.0.6 {}", sandbox.environment(id).display());
            assert_eq!(sandbox.run(id, "python", &["-c", prefix]), wanted);
            assert_eq!(sandbox.run(id, "django-admin", &["--version"]), "5.0.6");
            assert!(sandbox.run(id, "gunicorn", &["--version"]).contains("22.0.0"));
        }
    }
}

#[test]
fn a_package_that_is_new_in_an_editable_project_is_found() {
    if !reachable() {
        eprintln!("skipped: PyPI cannot be reached");
        return;
    }
    for (src, find) in [("", "include = ['app*']"), ("src/", "where = ['src']")] {
        let sandbox = Sandbox::new(With::Uv);
        let head = "[project]\nname = 'app'\nversion = '1'\n[build-system]\nrequires = ['setuptools>=64']\n";
        let project =
            format!("{head}build-backend = 'setuptools.build_meta'\n[tool.setuptools.packages.find]\n{find}\n");
        for id in ["one", "two"] {
            let first = format!("{src}app/__init__.py");
            sandbox.code(id, &[("requirements.txt", "-e .\n"), ("pyproject.toml", &project), (&first, "")]);
        }
        sandbox.code("two", &[(&format!("{src}app_billing/__init__.py"), "")]);
        let table = PythonTable::default();
        sandbox.build("one", &table, &[]);
        let second = sandbox.build("two", &table, &["one"]);
        assert_eq!(second.made, if src.is_empty() { Made::Built } else { Made::Linked }, "{second:?}");
        let file = sandbox.run("two", "python", &["-c", "import app_billing; print(app_billing.__file__)"]);
        assert_eq!(Path::new(&file), sandbox.release("two").join(src).join("app_billing/__init__.py"));
    }
}
