//! The interface itself: methods, faults, and what happens when nobody answers.

use crate::patience::eventually;
use crate::sandbox::{Sandbox, Version, sleeper};
use releasectl::supervisor::SupervisorError;
use releasectl::supervisor::rpc::methods::State;
use releasectl::supervisor::rpc::{Client, Fault, RpcError};
use releasectl::supervisor::{Limits, Supervisor};
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

on_both_versions!(
    methods_answer_in_types,
    faults_are_told_apart,
    the_end_of_a_log_is_read_whatever_is_in_it,
    a_stopped_supervisord_is_not_waited_for,
    a_wrong_password_is_said_to_be_one,
    http_with_a_password_works,
    a_supervisord_that_is_down_is_unreachable,
    a_supervisord_that_restarts_is_not_ready,
);

fn methods_answer_in_types(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf =
        sleeper("web", "numprocs=2\nprocess_name=%(program_name)s_%(process_num)d\nstartretries=7\nstopwaitsecs=600");
    sandbox.deploy("production", "a", &conf);
    let supervisor = sandbox.supervisor();
    let client = supervisor.client();
    assert_eq!(client.version().unwrap(), if version == Version::Debian { "4.2.5" } else { "4.3.0" });
    assert_eq!(client.state().unwrap(), "RUNNING");
    let processes = client.processes().unwrap();
    assert_eq!(processes.iter().map(|p| p.id()).collect::<Vec<_>>(), ["web:web_0", "web:web_1"]);
    assert!(processes.iter().all(|p| p.state == State::Running && p.pid.is_some() && p.uptime.is_some()));
    let settings = client.settings().unwrap();
    assert_eq!((settings[1].startsecs, settings[1].startretries, settings[1].stopwaitsecs), (0, 7, 600));
    assert!(settings[0].autostart && settings[0].command == "/bin/sleep 1000");
    client.stop_group("web").unwrap();
    eventually("the group is down", || client.processes().unwrap().iter().all(|p| p.state == State::Stopped));
    assert!(client.processes().unwrap().iter().all(|p| p.pid.is_none() && p.uptime.is_none()));
    let ids = ["web:web_0", "web:web_1"].map(str::to_owned);
    assert!(client.start_all(&ids).unwrap().iter().all(Result::is_ok));
    eventually("the group is up", || client.processes().unwrap().iter().all(|p| p.state == State::Running));
}

fn faults_are_told_apart(version: Version) {
    let sandbox = Sandbox::new(version);
    fs::write(sandbox.path().join("plain"), "").unwrap();
    let plain = sandbox.path().join("plain");
    let conf = format!(
        "{}[program:none]\ncommand=/nowhere/at-all\nautostart=false\n[program:plain]\ncommand={}\nautostart=false\n",
        sleeper("web", ""),
        plain.display()
    );
    sandbox.deploy("production", "a", &conf);
    let supervisor = sandbox.supervisor();
    let client = supervisor.client();
    let fault = |result: Result<(), RpcError>| result.unwrap_err().fault().unwrap();
    assert_eq!(fault(client.start("nobody:nobody")), Fault::BadName);
    assert_eq!(fault(client.start("web:web")), Fault::AlreadyStarted);
    assert_eq!(fault(client.remove_group("web")), Fault::StillRunning);
    assert_eq!(fault(client.add_group("web")), Fault::AlreadyAdded);
    assert_eq!(fault(client.add_group("nobody")), Fault::BadName);
    assert_eq!(fault(client.start("none:none")), Fault::NoFile);
    assert_eq!(fault(client.start("plain:plain")), Fault::NotExecutable);
    assert_eq!(fault(client.stop("none:none")), Fault::NotRunning);
    assert_eq!(fault(client.call("supervisor.noSuchMethod", &[]).map(drop)), Fault::UnknownMethod);
    assert_eq!(fault(client.call("supervisor.stopProcess", &[]).map(drop)), Fault::IncorrectParameters);
    fs::write(sandbox.release("production", "a").join("services/supervisor/bad.conf"), "[program:x]\nnonsense\n")
        .unwrap();
    let error = client.reread().unwrap_err();
    assert_eq!(error.fault(), Some(Fault::CantReread));
    assert!(error.to_string().contains("bad.conf"), "{error}");
}

fn the_end_of_a_log_is_read_whatever_is_in_it(version: Version) {
    let sandbox = Sandbox::new(version);
    let script = sandbox.path().join("say");
    fs::write(&script, "printf '%2000s' '' | sed 's/ /ü/g'; printf '\\n\\033[31mred & <b>\\001\\n'; exec sleep 1000\n")
        .unwrap();
    sandbox.deploy("production", "a", &format!("[program:say]\ncommand=/bin/sh {}\nstartsecs=0\n", script.display()));
    let supervisor = sandbox.supervisor();
    eventually("it has spoken", || supervisor.client().tail("say:say", false, 64).unwrap().contains("red & <b>\x01"));
    for bytes in 20..40 {
        let tail = supervisor.client().tail("say:say", false, bytes).unwrap();
        assert!(tail.ends_with("\x1b[31mred & <b>\x01\n"), "{bytes}: {tail:?}");
    }
    assert_eq!(supervisor.client().tail("say:say", true, 64).unwrap(), "");
}

fn a_stopped_supervisord_is_not_waited_for(version: Version) {
    let sandbox = Sandbox::new(version);
    sandbox.signal("STOP");
    let limits = Limits { call: Duration::from_millis(200), ..Limits::default() };
    let error = Supervisor::connect(&sandbox.config(), limits).unwrap_err();
    assert!(matches!(error, SupervisorError::Rpc(RpcError::Overdue { .. })), "{error}");
    assert!(error.hint().is_some());
    sandbox.signal("CONT");
    eventually("it answers again", || sandbox.connect().is_ok());
}

fn a_wrong_password_is_said_to_be_one(version: Version) {
    let server = "[unix_http_server]\nfile=%(here)s/s.sock\nusername=ops\npassword=s3%%cret ; not in git\n\
                  [supervisorctl]\nserverurl=unix://%(here)s/s.sock\nusername=ops\npassword=s3%%cret\n";
    let sandbox = Sandbox::with(version, server);
    assert_eq!(sandbox.supervisor().client().state().unwrap(), "RUNNING");
    let text = fs::read_to_string(sandbox.config()).unwrap();
    let refused = |text: String| {
        fs::write(sandbox.config(), text).unwrap();
        let error = sandbox.connect().unwrap_err();
        assert!(matches!(error, SupervisorError::Rpc(RpcError::Unauthorized { .. })), "{error}");
        assert!(!format!("{error} {error:?}").contains("cret"));
    };
    refused(text.replace("\npassword=s3%%cret\n", "\npassword=secret\n"));
    refused(text.replace("\nusername=ops\npassword=s3%%cret\n", "\nusername=ops\n"));
}

fn http_with_a_password_works(version: Version) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!(
        "[inet_http_server]\nport=127.0.0.1:{port}\nusername=ops\npassword=x\n\
         [supervisorctl]\nserverurl=http://localhost:{port}\nusername=ops\npassword=x\n"
    );
    let sandbox = Sandbox::with(version, &server);
    assert_eq!(sandbox.supervisor().client().state().unwrap(), "RUNNING");
    sandbox.signal("STOP");
    let client: Client = sandbox_client(&sandbox, Duration::from_millis(200));
    assert!(matches!(client.state(), Err(RpcError::Overdue { .. })));
    sandbox.signal("CONT");
}

fn sandbox_client(sandbox: &Sandbox, limit: Duration) -> Client {
    let text = fs::read_to_string(sandbox.config()).unwrap();
    let endpoint = releasectl::supervisor::conf::endpoint(&text, &sandbox.config(), &|_| None).unwrap();
    Client::new(endpoint, limit)
}

fn a_supervisord_that_is_down_is_unreachable(version: Version) {
    let mut sandbox = Sandbox::new(version);
    sandbox.kill();
    let error = sandbox.connect().unwrap_err();
    assert!(matches!(error, SupervisorError::Rpc(RpcError::Unreachable { .. })), "{error}");
    assert!(error.to_string().contains("s.sock"), "{error}");
    sandbox.start();
    assert!(sandbox.connect().is_ok());
}

fn a_supervisord_that_restarts_is_not_ready(version: Version) {
    let sandbox = Sandbox::new(version);
    let worker = sandbox.path().join("worker");
    fs::write(&worker, "trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.05; done\n").unwrap();
    sandbox.deploy("production", "a", &format!("[program:w]\ncommand=/bin/sh {}\nstartsecs=0\n", worker.display()));
    let supervisor = sandbox.supervisor();
    eventually("its trap is set", || !supervisor.client().tail("w:w", false, 64).unwrap().is_empty());
    supervisor.client().call("supervisor.restart", &[]).unwrap();
    let error = sandbox.connect().unwrap_err();
    assert!(matches!(error, SupervisorError::NotReady { .. }), "{error}");
    eventually("it is back", || sandbox.connect().is_ok());
}
