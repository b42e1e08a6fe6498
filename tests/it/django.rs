//! A real Django project, with Django, gunicorn and celery from PyPI, deployed twice and served by gunicorn from `current`.

use crate::packages::wheelhouse;
use crate::patience::eventually;
use crate::sandbox::Sandbox;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const RECIPE: &str = "[python]
requirements = ['requirements.txt']
wheelhouse = 'wheelhouse'
[shared]
dirs = ['media']
[[step]]
name = 'collectstatic'
phase = 'create'
run = 'python manage.py collectstatic --noinput'
[[step]]
name = 'migrate'
only_if = 'python manage.py showmigrations | grep -q \"\\[ \\]\"'
run = 'python manage.py migrate --noinput'
[[step]]
name = 'check'
phase = 'finish'
run = 'python manage.py check'
[task.celery_version]
run = 'celery --version'
";

const VIEW: &str = "\n\nfrom django.http import HttpResponse\n\n\ndef version(request):
    from django.contrib.auth.models import User
    return HttpResponse(f'version VERSION, {User.objects.count()} users')\n\n\nurlpatterns += [path('version', version)]\n";

/// A project made by `django-admin startproject`, whose database and static files lie beside the code.
fn project(tree: &Sandbox) -> PathBuf {
    let maker = tree.beside("maker");
    let done = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let source = tree.beside("project");
    fs::create_dir(&source).unwrap();
    let house = source.join("wheelhouse");
    wheelhouse(&[], &house);
    done(tree.clean("/usr/bin/python3").args(["-m", "venv"]).arg(&maker));
    done(tree.clean(maker.join("bin/pip")).args(["install", "--no-index", "--find-links"]).arg(&house).arg("Django"));
    done(tree.clean(maker.join("bin/django-admin")).args(["startproject", "site1"]).arg(&source));
    fs::write(source.join("requirements.txt"), "Django\ngunicorn\ncelery\n").unwrap();
    fs::write(source.join("releasectl.toml"), RECIPE).unwrap();
    let settings = source.join("site1/settings.py");
    let own = "\nALLOWED_HOSTS = ['*']\nSTATIC_ROOT = BASE_DIR / 'staticfiles'\n\
               DATABASES['default']['NAME'] = BASE_DIR / 'media' / 'db.sqlite3'\n";
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + own).unwrap();
    let celery = "from celery import Celery\n\napp = Celery('site1')\n";
    fs::write(source.join("site1/celery.py"), celery).unwrap();
    source
}

/// gunicorn from `current`, on a socket of its own; it ends with the test.
struct Served {
    gunicorn: Child,
    socket: PathBuf,
}

impl Served {
    fn start(tree: &Sandbox) -> Self {
        let current = tree.at("current");
        let socket = tree.beside("socket");
        let _ = fs::remove_file(&socket);
        let mut command = tree.clean(current.join("python_env/bin/gunicorn"));
        command.args(["--bind", &format!("unix:{}", socket.display()), "--workers", "1", "site1.wsgi"]);
        command.args(["--no-control-socket"]).current_dir(&current).stderr(Stdio::null());
        let gunicorn = command.spawn().unwrap();
        let served = Self { gunicorn, socket };
        eventually("gunicorn", || served.ask().is_ok_and(|answer| answer.contains("200 OK")));
        served
    }

    fn ask(&self) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.gunicorn.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.gunicorn.wait();
    }
}

/// Makes the project's page answer with this version.
fn set_version(source: &Path, original: &str, version: &str) {
    fs::write(source.join("site1/urls.py"), original.to_owned() + &VIEW.replace("VERSION", version)).unwrap();
}

fn steps(document: &serde_json::Value) -> Vec<String> {
    let steps = document["steps"].as_array().unwrap().iter();
    steps.map(|step| format!("{} {}", step["name"].as_str().unwrap(), step["status"].as_str().unwrap())).collect()
}

#[test]
fn a_django_project_is_deployed_twice_and_served_from_current_each_time() {
    let tree = Sandbox::new();
    let source = project(&tree);
    let urls = fs::read_to_string(source.join("site1/urls.py")).unwrap();
    let mut releases = Vec::new();
    for version in ["one", "two"] {
        set_version(&source, &urls, version);
        let deployed = tree.json(&["deploy", source.to_str().unwrap()]);
        assert_eq!(deployed["ok"], true, "{deployed}");
        let migrated = if version == "one" { "migrate done" } else { "migrate skipped" };
        let steps = steps(&deployed);
        for step in ["source done", "python done", "collectstatic done", migrated, "activate done", "check done"] {
            assert!(steps.contains(&step.to_owned()), "{step}: {steps:?}");
        }
        let served = Served::start(&tree);
        let answer = served.ask().unwrap();
        assert!(answer.contains(&format!("version {version}, 0 users")), "{answer}");
        let release = tree.release(&tree.live().unwrap());
        let in_use = tree.json(&["show"])["release"]["pids"].as_array().unwrap().len();
        assert!(in_use >= 2, "the master and its worker are seen to run from it");
        assert!(release.join("staticfiles/admin/css/base.css").exists());
        releases.push(release);
    }
    for (at, release) in releases.iter().enumerate() {
        let script = fs::read_to_string(release.join("python_env/bin/gunicorn")).unwrap();
        assert!(script.starts_with(&format!("#!{}", release.display())), "release {at}: {script}");
    }
    assert!(tree.done(&["manage", "showmigrations", "--plan"]).contains("[X]  auth.0001_initial"));
    assert!(tree.done(&["task", "celery_version"]).contains('('));
    tree.done(&["exec", "--", "python", "-c", "import site1.celery"]);
    tree.done(&["rollback"]);
    assert!(Served::start(&tree).ask().unwrap().contains("version one"));
}
