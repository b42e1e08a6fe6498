//! How a repository is reached: with a password, by the user's own ssh, by filters that fetch; and its submodules.

use crate::lab::as_root_or_left_out;
use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox, Started};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the user's git is told.
fn configure(tree: &Sandbox, settings: &str) {
    fs::create_dir_all(tree.beside("home")).unwrap();
    fs::write(tree.beside("home/.gitconfig"), settings).unwrap();
}

/// Has git take `repository` for what `url` names, and nothing else.
fn stands_for(tree: &Sandbox, url: &str, repository: &Path) {
    let settings = format!("[url \"{}\"]\n\tinsteadOf = \"{url}\"\n", repository.display());
    configure(tree, &settings);
}

#[test]
fn a_password_stays_out_of_messages_and_is_had_again_from_the_configuration() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    let url = "http://bob:s3cret@127.0.0.1:1/app";
    stands_for(&tree, url, &repository);
    let recipe = "[[step]]\nname = 'wait'\nphase = 'create'\nrun = 'read line <../../go'\n";
    fs::write(repository.join("releasectl.toml"), recipe).unwrap();
    tree.commit(&repository, "with a step");
    nix::unistd::mkfifo(&tree.at("go"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let deploy = Started::new(tree.command(&["deploy", url]));
    eventually("the step", || tree.run(&["log"]).stdout.contains("step wait"));
    let busy = tree.ends(4, &["deploy", url]);
    assert!(busy.stderr.contains("bob:***@127.0.0.1"), "{}", busy.stderr);
    fs::write(tree.at("go"), "go\n").unwrap();
    assert_eq!(deploy.answer().code, 0);
    tree.commit(&repository, "more");
    let forgotten = tree.ends(1, &["hotfix", "--ref", "master"]).stderr;
    assert!(forgotten.contains("the password of http://bob:***@127.0.0.1:1/app is not on record"), "{forgotten}");
    let file = tree.beside("host.toml");
    fs::write(&file, format!("root = '{}'\n[source]\ngit = '{url}'\n", tree.root().display())).unwrap();
    fs::remove_file(tree.at("go")).unwrap();
    tree.ends(0, &["--config", file.to_str().unwrap(), "hotfix", "--ref", "master"]);
    let found = tree.clean("grep").args(["-rl", "s3cret"]).arg(tree.root()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[test]
fn a_token_that_a_server_refuses_stays_out_of_what_git_says() {
    let tree = Sandbox::laid_out();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut guest in server.incoming().flatten() {
            let _ = guest.read(&mut [0; 4096]);
            let refusal = "HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm=\"code\"\r\nContent-Length: 0\r\n\r\n";
            let _ = guest.write_all(refusal.as_bytes());
        }
    });
    let token = "t0ken".repeat(8);
    let said = tree.ends(1, &["create", &format!("http://{token}@{address}/app")]).stderr;
    assert!(said.contains("could not read Password") && !said.contains("t0ken"), "{said}");
    let found = tree.clean("grep").args(["-rl", "t0ken"]).arg(tree.root()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[test]
fn the_users_own_way_to_another_host_is_taken() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    let script = tree.beside("by-hand");
    // The last word is what the other host is to run.
    fs::write(&script, "for word; do :; done\nexec sh -c \"$word\"\n").unwrap();
    configure(&tree, &format!("[core]\n\tsshCommand = sh {}\n", script.display()));
    tree.done(&["create", &format!("git@app.invalid:{}", repository.display())]);
}

#[test]
fn a_git_that_was_killed_is_told_as_that() {
    let tree = Sandbox::laid_out();
    // git itself, which leads its group.
    configure(&tree, "[core]\n\tsshCommand = kill -9 0; :\n");
    let said = tree.ends(1, &["create", "git@app.invalid:app"]).stderr;
    assert!(said.contains("SIGKILL") && said.contains("`dmesg` tells"), "{said}");
}

#[test]
fn whose_word_lets_git_read_somebody_elses_repository_is_told() {
    if !as_root_or_left_out("somebody else's repository") {
        return;
    }
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    tree.give_to_nobody(&repository);
    let said = tree.ends(1, &["create", repository.to_str().unwrap()]).stderr;
    assert!(said.contains("safe.directory") && said.contains("the tree's user"), "{said}");
}

/// A host that takes up connections and says nothing, until it is told to close them all, and each that comes then.
struct Silent {
    port: u16,
    guests: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Silent {
    fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let guests = Arc::new(Mutex::new(Some(Vec::new())));
        let kept = Arc::clone(&guests);
        std::thread::spawn(move || {
            for guest in server.incoming().flatten() {
                if let Some(guests) = &mut *kept.lock().unwrap() {
                    guests.push(guest);
                }
            }
        });
        Self { port, guests }
    }

    /// The words and the environment of the programs that were started to speak with it.
    fn callers(&self) -> String {
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\0', " ");
        let callers = processes.filter(|process| read(process.join("cmdline")).contains(&self.port.to_string()));
        callers.map(|process| ["cmdline", "environ"].map(|file| read(process.join(file))).concat()).collect()
    }
}

#[test]
fn a_host_that_falls_silent_is_not_waited_for_without_end() {
    let tree = Sandbox::laid_out();
    let silent = Silent::new();
    let [http, ssh] = ["http", "ssh"].map(|way| format!("{way}://127.0.0.1:{}/app", silent.port));
    configure(&tree, "[http]\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = 1\n");
    let said = tree.ends(1, &["create", &http]).stderr;
    assert!(said.contains("too slow"), "{said}");
    configure(&tree, "");
    let asked = [&http, &ssh].map(|url| Started::new(tree.command(&["create", url])));
    for limit in ["GIT_HTTP_LOW_SPEED_TIME=300", "ConnectTimeout=300", "ServerAliveInterval=100"] {
        eventually(limit, || silent.callers().contains(limit));
    }
    silent.guests.lock().unwrap().take();
    for asked in asked {
        assert_eq!(asked.answer().code, 1);
    }
}

#[test]
fn a_filter_of_the_users_is_told_where_the_code_comes_from() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    // As git-lfs does, which fetches from there what the commit only names.
    configure(&tree, "[filter \"where\"]\n\tsmudge = git config remote.origin.url\n\trequired\n");
    fs::write(repository.join(".gitattributes"), "version filter=where\n").unwrap();
    tree.git(&repository, &["-c", "filter.where.clean=cat", "add", "."]);
    tree.git(&repository, &["-c", "filter.where.clean=cat", "commit", "--quiet", "--message", "filtered"]);
    tree.done(&["create", repository.to_str().unwrap(), "--id", "A"]);
    let version = fs::read_to_string(tree.release("A").join("version")).unwrap();
    assert_eq!(Path::new(version.trim_end()), repository);
    assert_eq!(tree.json(&["verify", "A"])["ok"], true);
}

#[test]
fn a_submodules_commit_that_nobody_published_is_no_wrong_ref() {
    let tree = Sandbox::laid_out();
    let (code, part) = (tree.repository("app"), tree.repository("part"));
    let file = ["-c", "protocol.file.allow=always"];
    tree.git(&code, &[&file[..], &["submodule", "--quiet", "add", part.to_str().unwrap(), "part"]].concat());
    tree.commit(&code.join("part"), "not published");
    tree.commit(&code, "with it");
    let said = tree.ends(1, &["create", code.to_str().unwrap()]).stderr;
    assert!(said.contains("submodule part: ") && said.contains("has no ref or commit"), "{said}");
}

#[test]
fn a_submodule_that_git_is_told_to_leave_out_is_left_out() {
    let tree = Sandbox::laid_out();
    let (code, part) = (tree.repository("app"), tree.repository("part"));
    let file = ["-c", "protocol.file.allow=always"];
    for name in ["part", "extra"] {
        tree.git(&code, &[&file[..], &["submodule", "--quiet", "add", part.to_str().unwrap(), name]].concat());
    }
    tree.git(&code, &["config", "--file", ".gitmodules", "submodule.extra.update", "none"]);
    tree.git(&code, &["config", "--file", ".gitmodules", "submodule.extra.url", "https://127.0.0.1:1/extra"]);
    tree.commit(&code, "with both");
    tree.done(&["create", code.to_str().unwrap(), "--id", "A"]);
    assert!(tree.release("A").join("part/version").exists());
    assert_eq!(fs::read_dir(tree.release("A").join("extra")).unwrap().count(), 0);
    assert_eq!(tree.json(&["verify", "A"])["ok"], true);
}

#[test]
fn a_mirror_is_of_its_repositorys_kind_whatever_git_makes_by_default() {
    let tree = Sandbox::laid_out();
    let mirrors = || fs::read_dir(tree.at(".releasectl/mirror")).unwrap().map(|mirror| mirror.unwrap().path());
    let repository = |hash: &str| {
        let repository = tree.beside("app");
        let _ = fs::remove_dir_all(&repository);
        fs::create_dir_all(&repository).unwrap();
        tree.git(&repository, &["init", "--quiet", "--initial-branch=master", &format!("--object-format={hash}")]);
        fs::write(repository.join("version"), hash).unwrap();
        tree.commit(&repository, hash);
        repository.to_str().unwrap().to_owned()
    };
    // The second takes the place of the first, as one that is converted does.
    for (hash, default) in [("sha1", "sha256"), ("sha256", "sha1")] {
        let source = repository(hash);
        configure(&tree, &format!("[init]\n\tdefaultObjectFormat = {default}\n\tdefaultRefFormat = reftable\n"));
        for id in ["A", "B"].map(|name| format!("{name}{hash}")) {
            tree.done(&["create", &source, "--id", &id]);
            assert_eq!(fs::read_to_string(tree.release(&id).join("version")).unwrap(), hash);
            assert_eq!(tree.json(&["verify", &id])["contents"], true);
        }
        assert!(mirrors().all(|mirror| !mirror.join("reftable").exists()), "{hash}");
        configure(&tree, "");
    }
}

#[test]
fn a_file_larger_than_what_memory_there_is_can_be_fetched() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    fs::File::create(repository.join("large")).unwrap().set_len(48 << 20).unwrap();
    tree.commit(&repository, "large");
    // The other side has its own memory.
    tree.git(&repository, &["config", "core.bigFileThreshold", "1m"]);
    tree.git(&repository, &["repack", "-a", "-d", "--quiet"]);
    let mut limited = tree.clean("prlimit");
    limited.args(["--data=33554432", PROGRAM, "--root"]).arg(tree.root());
    let output = limited.args(["create", repository.to_str().unwrap(), "--id", "A"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::metadata(tree.release("A").join("large")).unwrap().len(), 48 << 20);
}
