use super::*;

fn ask(text: &str) -> Result<Endpoint, ConfError> {
    let environment = |name: &str| (name == "SECRET").then(|| "s3cret".to_owned());
    endpoint(text, Path::new("/etc/supervisor/supervisord.conf"), &environment)
}

#[test]
fn the_endpoint_is_what_supervisorctl_would_use() {
    let text = "[unix_http_server]\nfile=/other\n[supervisorctl]\nserverurl = unix://%(here)s/s.sock ; socket\n\
                username = ops\npassword = %(ENV_SECRET)s%%\n";
    let endpoint = ask(text).unwrap();
    assert_eq!(endpoint.address, Address::Unix("/etc/supervisor/s.sock".into()));
    assert_eq!(endpoint.login, Some(("ops".into(), "s3cret%".into())));
    let endpoint = ask("[supervisorctl]\nserverurl = http://localhost:9001\n").unwrap();
    assert!(matches!(endpoint.address, Address::Http(url) if url.port == 9001 && url.host == "localhost"));
    assert_eq!(endpoint.login, None);
}

#[test]
fn without_supervisorctl_the_server_itself_is_asked() {
    let endpoint = ask("[unix_http_server]\nfile = %(here)s/s.sock\nusername=a\npassword=b\n").unwrap();
    assert_eq!(endpoint.address, Address::Unix("/etc/supervisor/s.sock".into()));
    assert_eq!(endpoint.login, Some(("a".into(), "b".into())));
    let endpoint = ask("[inet_http_server]\nport = *:9001\nusername=a\npassword={SHA}82ab876d1387bfafe46\n").unwrap();
    assert!(matches!(endpoint.address, Address::Http(url) if url.host == "127.0.0.1" && url.port == 9001));
    assert_eq!(endpoint.login, None);
}

#[test]
fn an_endpoint_that_cannot_be_is_said_so() {
    for (text, word) in [
        ("[supervisord]\n", "neither"),
        ("[supervisorctl]\nserverurl = unix://x.sock\n", "absolute"),
        ("[supervisorctl]\nserverurl = https://x/\n", "https"),
        ("[supervisorctl]\nserverurl = unix://%(ENV_NOPE)s/x\n", "ENV_NOPE"),
        ("[supervisorctl\n", "line 1"),
    ] {
        let error = ask(text).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("supervisord.conf"), "{error}");
    }
}

#[test]
fn programs_and_their_groups_are_found() {
    let a = "[program:web]\nuser=cchq\n[program:worker]\n[program:beat]\n[group:celery]\nprograms = worker, beat\n";
    let b = "[eventlistener:memmon]\n[fcgi-program:php]\nuser = cchq\n";
    let declared = declared([("a.conf", a), ("b.conf", b)]).unwrap();
    assert_eq!(declared.groups.keys().collect::<Vec<_>>(), ["celery", "memmon", "php", "web"]);
    assert_eq!(declared.groups["celery"].iter().collect::<Vec<_>>(), ["beat", "worker"]);
    assert!(declared.owns("celery") && !declared.owns("worker"));
    let bare: Vec<_> = declared.without_user().map(|p| p.name.as_str()).collect();
    assert_eq!(bare, ["memmon", "beat", "worker"]);
}

#[test]
fn what_does_not_belong_into_a_release_is_refused_with_its_place() {
    let refused = |files: &[(&str, &str)]| declared(files.iter().copied()).unwrap_err().to_string();
    for section in
        ["supervisord", "include", "DEFAULT", "rpcinterface:x", "unix_http_server", "ctlplugin:x", "Program:x"]
    {
        let error = refused(&[("a.conf", &format!("[program:x]\n[{section}]\n"))]);
        assert!(error.starts_with("a.conf: line 2:") && error.contains(section), "{error}");
    }
    let error = refused(&[("a.conf", "[program:x]\n"), ("b.conf", "\n[program:x]\n")]);
    assert!(error.contains("b.conf") && error.contains("already declared in a.conf"), "{error}");
    assert!(refused(&[("a.conf", "[group:g]\nprograms=theirs\n")]).contains("not a program of this release"));
    assert!(refused(&[("a.conf", "[group:a]\nprograms=b\n[program:a]\n[program:b]\n")]).contains("second group"));
    assert!(refused(&[("a.conf", "[program:x]\nnonsense\n")]).contains("line 2"));
}

#[test]
fn an_indented_header_is_text_and_declares_nothing() {
    let text = "[program:x]\ncommand = a\n  [supervisord]\n";
    assert_eq!(declared([("a.conf", text)]).unwrap().groups.len(), 1);
}

#[test]
fn a_release_without_files_declares_nothing_and_links_are_refused() {
    let tree = tempfile::tempdir().unwrap();
    let release = Dir::open(tree.path()).unwrap();
    assert_eq!(declared_in(&release).unwrap(), Declared::default());
    let dir = release.make_dir("services", 0o755).unwrap().make_dir("supervisor", 0o755).unwrap();
    dir.write_file("b.conf", b"[program:b]\n", 0o644).unwrap();
    dir.write_file(".hidden.conf", b"[supervisord]\n", 0o644).unwrap();
    dir.write_file("README", b"no", 0o644).unwrap();
    assert_eq!(declared_in(&release).unwrap().groups.len(), 1);
    dir.symlink("c.conf", "b.conf".as_ref()).unwrap();
    assert!(declared_in(&release).is_err());
}
