//! Releases activated in turn under load: no request fails, and afterwards everything runs from the new one.

use crate::patience::eventually;
use crate::supervised::{Version, World, signal, sleeper, virtualenv};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Serves the version of the release it was started in; on SIGTERM it ends what it has begun. Tells its port in a file.
const WEB: &str = r#"
import http.server, os, signal, sys, threading, time
version = open("version").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.02)
        body = version.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
server = Server(("127.0.0.1", 0), Handler)
signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=server.shutdown).start())
with open(sys.argv[1] + ".new", "w") as f: f.write(str(server.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever(0.05)
server.server_close()
"#;

/// A worker that ends what it is doing before it stops, and leaves a child that goes on for as long as a file is there.
const WORKER: &str = "trap 'sh finishing.sh & sleep 1; exit 0' TERM\nwhile :; do sleep 0.05; done\n";
const FINISHING: &str = "exec </dev/null >/dev/null 2>&1\nwhile test -e ../../finishing; do sleep 0.05; done\n";

/// A reverse proxy: each request goes to one of the backends that the port files name, and to the next one if that one
/// does not take it.
struct Proxy {
    port: u16,
}

impl Proxy {
    fn new(backends: Vec<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turn = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (backends, turn) = (backends.clone(), Arc::clone(&turn));
                std::thread::spawn(move || {
                    let first = turn.fetch_add(1, Ordering::Relaxed);
                    let _ = pass_on(stream, &backends, first);
                });
            }
        });
        Self { port }
    }

    /// One request of a client; the body of its answer.
    fn get(&self) -> Option<String> {
        ask(self.port).ok()
    }
}

fn pass_on(mut client: TcpStream, backends: &[PathBuf], first: usize) -> io::Result<()> {
    let _ = client.read(&mut [0; 4096])?;
    let answers = (0..backends.len()).filter_map(|n| {
        let port = fs::read_to_string(&backends[(first + n) % backends.len()]).ok()?;
        ask(port.parse().ok()?).ok()
    });
    let answer = answers.into_iter().next();
    match answer {
        Some(body) => write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        None => write!(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// One request; the body of an answer 200 that came whole.
fn ask(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let ok = head.lines().next().is_some_and(|line| line.contains(" 200 ")) && !body.is_empty();
    if ok { Ok(body.to_owned()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Requests through the proxy, four at a time, while `act` is done. How many there were, and how many failed.
fn under_load(proxy: &Proxy, act: impl FnOnce()) -> (usize, usize) {
    let (done, all, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    all.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(usize::from(proxy.get().is_none()), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        // Also if it panics: otherwise the load never ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    (all.into_inner(), failed.into_inner())
}

/// An undrain hook that waits until the program that was restarted answers: RUNNING alone does not say so.
fn undrain(ports: &Path) -> String {
    let wait = "import sys, time, urllib.request\nwhile True:\n    try:\n        urllib.request.urlopen(\"http://127.0.0.1:\" + \
         open(sys.argv[1]).read()); break\n    except Exception: time.sleep(0.05)\n";
    fs::write(ports.join("wait.py"), wait).unwrap();
    let shown = ports.display();
    format!(
        "[hooks]\ndrain = 'rm -f {shown}/${{RELEASECTL_PROGRAM#*:}}'\n\
         undrain = 'case $RELEASECTL_PROGRAM in web:*) python3 {shown}/wait.py {shown}/${{RELEASECTL_PROGRAM#*:}};; esac'\n"
    )
}

const PROGRAMS: [&str; 4] = ["beat", "web:web_0", "web:web_1", "worker"];

fn conf(ports: &Path) -> String {
    let shown = ports.display();
    format!(
        "[program:web]\ncommand=/usr/bin/python3 web.py {shown}/web_%(process_num)d\ndirectory=ROOT/current\nstartsecs=1\n\
         numprocs=2\nprocess_name=%(program_name)s_%(process_num)d\nstopwaitsecs=60\n\
         [program:worker]\ncommand=/bin/sh worker.sh\ndirectory=ROOT/current\nstartsecs=1\nstopwaitsecs=600\n"
    ) + &sleeper("beat", "")
}

fn three_releases_in_turn_under_load(version: Version) {
    let world = World::of(version, "");
    let ports = world.tree.beside("ports");
    fs::create_dir(&ports).unwrap();
    world.host(&undrain(&ports));
    for id in ["A", "B", "C"] {
        let files = [("web.py", WEB), ("worker.sh", WORKER), ("finishing.sh", FINISHING)];
        world.build(id, &conf(&ports), &files);
    }
    fs::write(world.tree.at("finishing"), "").unwrap();
    world.done("activate A");
    let proxy = Proxy::new(vec![ports.join("web_0"), ports.join("web_1")]);
    eventually("it serves", || proxy.get().is_some());
    for id in ["B", "C"] {
        let (all, failed) = under_load(&proxy, || drop(world.done(&format!("activate {id}"))));
        assert!(all > 0);
        assert_eq!(failed, 0, "of {all} requests during the activation of {id}");
        world.is_well(id, &PROGRAMS);
        assert_eq!(proxy.get().as_deref(), Some(id));
    }
    // What the worker left behind still runs from its release, which is therefore not cleaned.
    let processes = world.json(0, "ps");
    let old: Vec<&str> =
        processes["processes"].as_array().unwrap().iter().filter_map(|p| p["release"].as_str()).collect();
    assert!(old.contains(&"A") && old.contains(&"B"), "{processes}");
    let cleaned = world.json(0, "clean --keep 1");
    assert!(world.tree.release("A").exists(), "{cleaned}");
    fs::remove_file(world.tree.at("finishing")).unwrap();
    eventually("A is free", || world.json(0, "clean --keep 1")["removed"].to_string().contains("\"A\""));
    // Back, and a release that does not come up, are no different for the clients.
    let (_, failed) = under_load(&proxy, || drop(world.done("rollback")));
    assert_eq!(failed, 0);
    world.is_well("B", &PROGRAMS);
    let dies = "import sys; sys.exit(3)\n";
    world.build("D", &conf(&ports), &[("web.py", WEB), ("worker.sh", "exit 3\n"), ("finishing.sh", dies)]);
    let (_, failed) = under_load(&proxy, || drop(world.ends(5, "activate D")));
    assert_eq!(failed, 0);
    world.is_well("B", &PROGRAMS);
    assert_eq!(proxy.get().as_deref(), Some("B"));
}

on_both_versions!(three_releases_in_turn_under_load);

/// gunicorn keeps its directory on HUP; it must be another process, from the release that is live.
#[test]
fn gunicorn_runs_from_the_new_release_in_its_own_environment() {
    let world = World::new();
    let gunicorn = virtualenv("gunicorn", &["gunicorn==23.0.0"]);
    let app = "import os\nversion = open('version').read()\n\
         def app(environ, start):\n    start('200 OK', [('Content-Length', str(len(version)))])\n    return [version.encode()]\n";
    let socket = world.tree.beside("web.sock");
    let conf = format!(
        "[program:web]\ncommand={}/bin/gunicorn --workers 2 --bind unix:{} app:app\ndirectory=ROOT/current\nstartsecs=1\n",
        gunicorn.display(),
        socket.display()
    );
    world.host(&format!(
        "[health]\ncommand = \"python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect(\\\"{}\\\")'\"\ntimeout = \"60s\"\n",
        socket.display()
    ));
    let served = || -> Option<String> {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    };
    for id in ["A", "B"] {
        world.build(id, &conf, &[("app.py", app)]);
        world.done(&format!("activate {id}"));
        world.is_well(id, &["web"]);
        assert_eq!(served().as_deref(), Some(id));
        let processes = world.json(0, "ps");
        let all = processes["processes"].as_array().unwrap();
        assert!(all.len() >= 3, "a master and two workers: {processes}");
        assert!(all.iter().all(|p| p["release"] == id && p["program"] == "web:web"), "{processes}");
    }
    // HUP alone would have stayed in the old one, which is why nobody sends it.
    let master = world.pid("web");
    world.done("activate A --no-restart");
    signal(master, "HUP");
    assert_eq!(world.works_in("web"), "B");
    world.done("restart");
    world.is_well("A", &["web"]);
    assert_ne!(world.pid("web"), master);
}

/// SIGKILL at moments spread over the whole of an activation that fails and of its way back.
#[test]
fn killed_at_any_moment_any_command_finds_it_consistent() {
    let world = World::new();
    let conf = sleeper("one", "")
        + "[program:two]\ncommand=/bin/sh two.sh\ndirectory=ROOT/current\nstartsecs=1\nstartretries=0\n";
    world.build("A", &conf, &[("two.sh", "exec sleep 1000\n")]);
    world.build("B", &conf, &[("two.sh", "sleep 0.3; exit 3\n")]);
    world.done("activate A");
    for moment in 0..12 {
        let mut child = world.command("activate B").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment * 350));
        let _ = child.kill();
        child.wait().unwrap();
        let live = world.tree.live().unwrap();
        assert!(["A", "B"].contains(&live.as_str()));
        assert_eq!(world.json(0, "status")["current"], live.as_str());
        let answer = if live == "A" { world.run("activate A") } else { world.run("rollback") };
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        world.is_well("A", &["one", "two"]);
        assert!(world.json(0, "status")["unfinished"].as_array().unwrap().is_empty());
    }
    world.ends(3, "rollback");
}
