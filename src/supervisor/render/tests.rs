use super::*;

fn host() -> Host {
    Host {
        environment: "production".into(),
        root: "/w/100% mine".into(),
        python: "python_env".into(),
        name: "web1".into(),
        roles: vec!["celery".into(), "django".into()],
        user: Some("cchq".into()),
    }
}

fn table(text: &str) -> SupervisorTable {
    toml::from_str(text).unwrap()
}

fn rendered(template: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let templates = BTreeMap::from([("web.conf".to_owned(), template.to_owned())]);
    render(&templates, &table(text), &host()).map_err(|e| e.to_string())
}

fn one(template: &str, params: &str) -> Result<String, String> {
    let files = rendered(template, &format!("[[program]]\ntemplate = \"web.conf\"\nparams = {{ {params} }}\n"))?;
    Ok(files.first().map(|(_, text)| text.split_once('\n').unwrap().1.to_owned()).unwrap_or_default())
}

#[test]
fn a_program_is_rendered_with_current_paths_and_the_configured_user() {
    let template = "[program:web_{{ index }}]\ncommand={{ python_env }}/bin/gunicorn -n {{ queue }} %(program_name)s\n\
                    directory={{ current }}\nuser=root\n";
    let text = one(template, "queue = \"a;b\"").unwrap();
    let expected = "[program:web_0]\nuser = cchq\ncommand=/w/100%% mine/current/python_env/bin/gunicorn -n a;b %(program_name)s\n\
                    directory=/w/100%% mine/current\n";
    assert_eq!(text, expected);
}

#[test]
fn roles_count_hosts_and_blacklist_decide_what_is_rendered() {
    let template = "[program:w_{{ q }}_{{ index }}]\ncommand=x\n";
    let names = |table: &str| {
        let files = rendered(template, table).unwrap();
        files.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let base = "[[program]]\ntemplate = \"web.conf\"\nparams = { q = \"a\" }\n";
    assert_eq!(names(base), ["web.conf"]);
    assert_eq!(names(&format!("{base}count = 2\n")), ["web_0.conf", "web_1.conf"]);
    assert_eq!(names(&format!("{base}count = 0\n")), [""; 0]);
    assert_eq!(names(&format!("{base}roles = [\"pillowtop\"]\n")), [""; 0]);
    assert_eq!(names(&format!("{base}roles = [\"pillowtop\", \"celery\"]\n")), ["web.conf"]);
    assert_eq!(names(&format!("{base}count = 2\nhosts.web1 = {{ count = 1 }}\n")), ["web.conf"]);
    assert_eq!(names(&format!("{base}{}", base.replace("\"a\"", "\"b\""))), ["web-2.conf", "web.conf"]);
    assert_eq!(names(&format!("blacklist = [\"web\"]\n{base}")), [""; 0]);
    assert_eq!(names(&format!("blacklist = [\"w_a_1\"]\n{base}count = 2\n")), ["web_0.conf"]);
    let two = "[program:a]\n[program:b]\n";
    let error = rendered(two, &format!("blacklist = [\"a\"]\n{base}")).unwrap_err();
    assert!(error.contains("blacklist"), "{error}");
    for many in ["count = 1001\n", "hosts.web1 = { count = 4000000000 }\n"] {
        let error = rendered(template, &format!("{base}{many}")).unwrap_err();
        assert!(error.contains("more than the 1000"), "{error}");
    }
}

#[test]
fn a_host_has_its_own_values() {
    let template =
        "[program:w]\ncommand=x -c {{ concurrency }} {{ params.concurrency }} {{ host }} {{ roles | join(',') }}\n";
    let table =
        "[[program]]\ntemplate = \"web.conf\"\nparams = { concurrency = 8 }\nhosts.web1 = { concurrency = 2 }\n";
    let files = rendered(template, table).unwrap();
    assert!(files[0].1.contains("command=x -c 2 2 web1 celery,django\n"), "{files:?}");
}

#[test]
fn what_real_templates_use_is_there() {
    let template = "[program:w]\n{% if extra is defined %}nice={{ extra }}\n{% endif -%}\n\
                    command=x{% for q in queues | sort %} -Q {{ q | upper }}{% endfor %} {{ extra | default('none') }}\n\
                    environment={% for k, v in env | items %}{{ k }}=\"{{ v }}\"{% if not loop.last %},{% endif %}{% endfor %}\n\
                    {# a remark #}{% set n = 2 * 3 %}priority={{ n }}\nstopwaitsecs={{ wait | int if wait else 10 }}\n";
    let text = one(template, "queues = ['b', 'a'], env = { A = '1%', B = 'x' }, wait = 0").unwrap();
    let expected = "[program:w]\nuser = cchq\ncommand=x -Q A -Q B none\nenvironment=A=\"1%%\",B=\"x\"\npriority=6\nstopwaitsecs=10\n";
    assert_eq!(text, expected);
    assert!(one("{% include 'x' %}", "").is_err());
}

#[test]
fn what_is_not_defined_is_an_error_with_its_place() {
    let error = one("[program:w]\n{{ nope }}\n", "").unwrap_err();
    assert!(error.contains("web.conf") && error.contains("line 2") && error.contains("undefined"), "{error}");
    let error = one("[program:web]\n  command={{ missing }} %s\n", "").unwrap_err();
    assert!(error.ends_with("line 2: undefined value in `command={{ missing }} %s`"), "{error}");
    assert!(one("{{ unclosed", "").unwrap_err().contains("line 1"));
    assert!(one("{{ params.nope }}", "").is_err());
    assert!(one("{% if nope %}{% endif %}", "").is_err());
    assert!(rendered("", "[[program]]\ntemplate = \"other.conf\"\n").unwrap_err().contains("no such template"));
    assert!(one("", "root = \"x\"").unwrap_err().contains("root"));
}

#[test]
fn a_value_cannot_break_out_of_its_line() {
    let refused = |value: &str| one("[program:w]\ncommand=x {{ v }}\n", &format!("v = \"{value}\"")).unwrap_err();
    assert!(refused("a\\n[supervisord]").contains("line break"));
    assert!(refused("a\\u0007").contains("control"));
    assert!(refused("a ;b").contains("comment sign"));
    assert!(refused(";b").contains("begins with ;"));
    assert!(refused("#b").contains("begins with ;"));
    let fine = |value: &str| one("[program:w]\ncommand=x={{ v }}\n", &format!("v = {value}")).unwrap();
    assert!(fine("\"#fff;\"").contains("command=x=#fff;\n"));
    assert!(fine("\"50%\"").contains("command=x=50%%\n"));
    assert!(fine("[\"50%\", 1]").contains("50%%"));
    assert!(fine("true").contains("command=x=true\n") || fine("true").contains("command=x=True\n"));
}

#[test]
fn only_programs_and_groups_come_out_and_none_twice() {
    assert!(one("[supervisord]\n", "").unwrap_err().contains("[supervisord]"));
    assert!(one("[program:a]\n[program:a]\n", "").unwrap_err().contains("already declared"));
    assert!(one("nonsense\n", "").unwrap_err().contains("line 1"));
    assert_eq!(one("{% if false %}[program:a]{% endif %}\n", "").unwrap(), "");
    assert!(one("[group:g]\nprograms=a\n[program:a]\n", "").unwrap().contains("user = cchq"));
}

#[test]
fn files_are_written_and_stale_ones_removed() {
    let tree = tempfile::tempdir().unwrap();
    let release = Dir::open(tree.path()).unwrap();
    let file = |name: &str| (format!("{name}.conf"), format!("{HEADING}x\n[program:{name}]\n"));
    let shipped = write(&release, &[file("a"), file("b")]).unwrap();
    assert_eq!(shipped.groups.len(), 2);
    let dir = release.open_below(Path::new(conf::DIRECTORY)).unwrap();
    dir.write_file("own.conf", b"[program:own]\n", 0o644).unwrap();
    let declared = write(&release, &[file("b")]).unwrap();
    assert_eq!(declared.groups.keys().collect::<Vec<_>>(), ["b", "own"]);
    dir.write_file("web.conf.j2", b"x", 0o644).unwrap();
    let found = templates(&release, Path::new(conf::DIRECTORY)).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["b.conf", "own.conf", "web.conf.j2"]);
}
