//! A Django project in a repository that the hosts fetch from, served by gunicorn under supervisor.

use crate::packages::wheelhouse;
use crate::tooling;
use crate::world::{HERE, World, done, until};
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command};

/// The project's files.
const FILES: [(&str, &str); 6] = [
    (
        "manage.py",
        "import os, sys\nfrom django.core.management import execute_from_command_line\n\
         os.environ['DJANGO_SETTINGS_MODULE'] = 'site1.settings'\nexecute_from_command_line(sys.argv)\n",
    ),
    (
        "site1/settings.py",
        "from pathlib import Path\nBASE_DIR = Path(__file__).resolve().parent.parent\nSECRET_KEY = 'of a test'\n\
         ALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'site1.urls'\nUSE_TZ = True\n\
         INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'django.contrib.staticfiles']\n\
         STATIC_URL = 'static/'\nSTATIC_ROOT = BASE_DIR / 'staticfiles'\n\
         DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'media' / 'db.sqlite3'}}\n",
    ),
    (
        "site1/urls.py",
        "import time\nfrom django.conf import settings\nfrom django.http import HttpResponse\nfrom django.urls import path\n\
         VERSION = (settings.BASE_DIR / 'version').read_text().strip()\n\
         def version(request):\n    time.sleep(0.02)\n    return HttpResponse(VERSION, headers={'Content-Length': len(VERSION)})\n\
         urlpatterns = [path('', version)]\n",
    ),
    (
        "site1/wsgi.py",
        "import os\nfrom django.core.wsgi import get_wsgi_application\n\
         os.environ['DJANGO_SETTINGS_MODULE'] = 'site1.settings'\napplication = get_wsgi_application()\n",
    ),
    (
        "deployment/supervisor/web.conf",
        "[program:web]\ncommand={{ python_env }}/bin/gunicorn --bind 0.0.0.0:8000 --workers 1 --threads 4 \
         --no-control-socket site1.wsgi\ndirectory={{ current }}\nstartsecs=1\nstopwaitsecs=30\n",
    ),
    (
        "releasectl.toml",
        "[python]\nrequirements = ['requirements.txt']\nwheelhouse = 'wheelhouse'\n[shared]\ndirs = ['media']\n\
         [[step]]\nname = 'static-files'\nphase = 'create'\nrun = 'python manage.py collectstatic --noinput -v 0'\n\
         [[step]]\nname = 'may-be-built-here'\nphase = 'create'\nrun = 'test ! -e /etc/no-builds-here'\n\
         [[step]]\nname = 'migrate'\nrun = 'python manage.py migrate --noinput -v 0'\nroles = ['deploy']\n\
         [[step]]\nname = 'may-end-here'\nphase = 'finish'\nrun = 'test ! -e /etc/no-endings-here'\n\
         [supervisor]\ntemplates = 'deployment/supervisor'\n[[supervisor.program]]\ntemplate = 'web.conf'\nroles = ['web']\n",
    ),
];

/// The configuration of a host with these roles.
pub fn configuration(roles: &str) -> String {
    format!(
        "root = '/srv/www/production'\nuser = 'site'\nroles = {roles}\n[source]\ngit = 'git://{HERE}/site.git'\n\
         ref = 'main'\n[supervisor]\nconfig = '/etc/supervisor/supervisord.conf'\n\
         [health]\nurl = 'http://127.0.0.1:8000/'\ntimeout = '60s'\n[clean]\nkeep = 9\n"
    )
}

/// The repository, and git's own daemon before it.
pub struct Site<'a> {
    world: &'a World,
    daemon: Child,
}

impl<'a> Site<'a> {
    /// The project's first version is `one`.
    pub fn new(world: &'a World) -> Self {
        let code = world.at("site.git");
        for (path, text) in FILES {
            let file = code.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::write(code.join("requirements.txt"), "Django\ngunicorn\n").unwrap();
        wheelhouse(&["django", "Django", "gunicorn", "asgiref", "sqlparse", "packaging"], &code.join("wheelhouse"));
        done(world.here("git").arg("-C").arg(&code).args(["init", "--quiet", "--initial-branch=main"]));
        let mut command = world.here("git");
        command.args(["daemon", "--export-all", "--reuseaddr"]).arg(format!("--listen={HERE}"));
        let daemon = command.arg(format!("--base-path={}", world.at("").display())).spawn().unwrap();
        let site = Self { world, daemon };
        site.publish("one");
        until("git's daemon", || TcpStream::connect((HERE, 9418)).is_ok());
        site
    }

    /// Commits a version.
    pub fn publish(&self, version: &str) {
        let code = self.world.at("site.git");
        fs::write(code.join("version"), version).unwrap();
        let git = |words: &[&str]| {
            let mut command: Command = self.world.here("git");
            command.arg("-C").arg(&code).args(["-c", "user.name=A. Tester", "-c", "user.email=tester@example.org"]);
            done(command.args(words));
        };
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", version]);
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Installs and configures releasectl on all hosts, as one would without an orchestrator.
pub fn set_up_by_hand(world: &World) {
    for host in &world.hosts {
        let roles = if host.name == "web1" { "['web', 'deploy']" } else { "['web']" };
        let file = world.at(&format!("{}.toml", host.name));
        fs::write(&file, configuration(roles)).unwrap();
        world.copy(&tooling::package(), host, "/tmp/releasectl.deb");
        world.on(host, "dpkg --install /tmp/releasectl.deb && install -d -o site /srv/www/production");
        world.copy(&file, host, "/etc/releasectl/production.toml");
        world.on(host, "releasectl init && releasectl supervisor wire");
    }
}
