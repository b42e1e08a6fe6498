//! The manual says what the program says of itself: every verb and option, every exit status, every field of a document,
//! every key of the configuration, and nothing that is not there.

use crate::sandbox::PROGRAM;
use clap::CommandFactory;
use releasectl::cli::Cli;
use releasectl::recipe::parse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGES: [&str; 3] = ["releasectl.8", "releasectl.toml.5", "releasectl-tree.5"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page(name: &str) -> String {
    text(&format!("man/{name}"))
}

/// The page as a reader sees it, without line breaks.
fn rendered(name: &str) -> String {
    let output =
        Command::new("mandoc").args(["-T", "utf8", "-O", "width=120"]).arg(repository("man").join(name)).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut plain = String::new();
    for c in text.chars() {
        // Bold and underlined are written twice, one over the other.
        let _ = if c == '\u{8}' {
            plain.pop()
        } else {
            plain.push(c);
            None
        };
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The sections of a page: heading (`.Sh`, and below it `.Ss`) → its lines.
fn sections(page: &str) -> BTreeMap<String, Vec<&str>> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut heading = String::new();
    for line in page.lines() {
        match line.strip_prefix(".Sh ").or_else(|| line.strip_prefix(".Ss ")) {
            Some(name) => heading = name.trim_matches('"').to_owned(),
            None => found.entry(heading.clone()).or_default().push(line),
        }
    }
    found
}

/// The options that `.It` lines of a section explain, as they are typed.
fn explained(lines: &[&str]) -> BTreeSet<String> {
    let items = lines.iter().filter_map(|line| line.strip_prefix(".It Fl "));
    let names = items.flat_map(|item| item.split(" Fl ").map(|part| part.split([' ', '=']).next().unwrap().to_owned()));
    names.map(|name| format!("-{name}")).collect()
}

/// The options that a command has of its own, as they are typed. `--help` is everywhere and explained once.
fn known(command: &clap::Command) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_positional() && !argument.is_hide_set()) {
        names.extend(argument.get_long().map(|long| format!("--{long}")));
        names.extend(argument.get_short().map(|short| format!("-{short}")));
    }
    names
}

#[test]
fn the_pages_are_clean_mdoc() {
    let files = PAGES.map(|name| repository("man").join(name));
    let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let there: BTreeSet<String> = fs::read_dir(repository("man"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, PAGES.map(str::to_owned).into());
}

#[test]
fn every_verb_and_option_is_in_the_manual_and_no_other() {
    let page = page("releasectl.8");
    let mut sections = sections(&page);
    let mut program = Cli::command();
    program.build();
    assert_eq!(explained(&sections["OPTIONS"]), known(&program), "what every command takes");
    let mut verbs = BTreeSet::new();
    for verb in program.get_subcommands() {
        let name = verb.get_name();
        verbs.insert(name.to_owned());
        let lines = sections.remove(name).unwrap_or_else(|| panic!("releasectl.8 has no section {name}"));
        let own: BTreeSet<String> = known(verb).difference(&known(&program)).cloned().collect();
        assert_eq!(explained(&lines), own, "{name}");
        for below in verb.get_subcommands() {
            let item = format!(".It Cm {}", below.get_name());
            assert!(lines.iter().any(|line| line.split(" Op ").next() == Some(&item)), "{name} {}", below.get_name());
            let more: BTreeSet<String> = known(below).difference(&known(&program)).cloned().collect();
            assert!(more.is_empty(), "{name} {}: {more:?}", below.get_name());
        }
    }
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix(".Ss ")).map(str::to_owned).collect();
    let unknown: Vec<&String> =
        headings.iter().filter(|heading| !verbs.contains(*heading) && !heading.contains(' ')).collect();
    assert!(unknown.is_empty(), "sections of no verb: {unknown:?}");
}

#[test]
fn the_help_of_a_command_says_what_the_list_of_commands_does() {
    let help = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).arg("-h").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&[]);
    let list = all.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(list.lines().count() > 25, "{all}");
    for line in list.lines() {
        let (verb, does) = line.trim().split_once(' ').unwrap();
        assert_eq!(help(&[verb]).lines().next(), Some(does.trim()), "{verb}");
    }
}

#[test]
fn the_exit_statuses_are_those_of_the_program() {
    let (code, page) = (text("src/exit.rs"), rendered("releasectl.8"));
    let table = page.split(" EXIT STATUS ").nth(1).unwrap().split(" JSON ").next().unwrap().to_owned();
    let mut statuses = 0;
    let mut meaning = "";
    for line in code.lines().map(str::trim) {
        meaning = line.strip_prefix("/// ").unwrap_or(meaning);
        let Some(number) = line.strip_suffix(',').and_then(|line| line.split_once(" = ")).map(|(_, number)| number)
        else {
            continue;
        };
        let told = format!("{number} {}", meaning.replace('`', ""));
        assert!(table.contains(&told), "EXIT STATUS does not say: {told}\n{table}");
        statuses += 1;
    }
    let page = self::page("releasectl.8");
    let listed = sections(&page)["EXIT STATUS"].iter().filter(|line| line.starts_with(".It ")).count();
    assert_eq!((statuses, listed), (10, 10));
}

#[test]
fn every_field_of_a_document_is_in_the_manual() {
    let page = page("releasectl.8");
    let named: BTreeSet<&str> = page
        .lines()
        .flat_map(|line| line.split(" Va ").skip(1).chain(line.strip_prefix(".Va ")))
        .chain(page.lines().filter_map(|line| line.strip_prefix(".It Va ")))
        .filter_map(|rest| rest.split(' ').next())
        .collect();
    let mut fields = BTreeSet::new();
    for entry in fs::read_dir(repository("tests/it/snapshots")).unwrap() {
        let document = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in document.lines().filter_map(|line| line.trim().strip_prefix('"')) {
            fields.extend(line.split_once("\": ").map(|(name, _)| name.to_owned()));
        }
    }
    let missing: Vec<&String> = fields.iter().filter(|field| !named.contains(field.as_str())).collect();
    assert!(fields.len() > 40 && missing.is_empty(), "not explained under JSON: {missing:?}");
}

/// The tables that src/recipe.rs declares: type → its fields and their types.
fn tables(code: &str) -> BTreeMap<&str, Vec<(String, &str)>> {
    let mut tables: BTreeMap<&str, Vec<(String, &str)>> = BTreeMap::new();
    for structure in code.split("pub struct ").skip(1) {
        let (name, rest) = structure.split_once([' ', '(']).unwrap();
        let fields = rest.split("\n}").next().unwrap().lines();
        let fields = fields.filter_map(|line| line.trim().strip_prefix("pub ")?.trim_end_matches(',').split_once(": "));
        tables.insert(name, fields.map(|(field, kind)| (field.trim_start_matches("r#").to_owned(), kind)).collect());
    }
    tables
}

/// Every key below the table `name`, as `table.key`; a name of the operator's own is `NAME`.
fn keys(tables: &BTreeMap<&str, Vec<(String, &str)>>, name: &str, path: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (field, kind) in &tables[name] {
        let inner = kind.rsplit('<').next().unwrap().trim_end_matches('>').rsplit(", ").next().unwrap();
        let named = if kind.starts_with("BTreeMap<String, ") { ".NAME" } else { "" };
        match tables.get(inner).filter(|fields| !fields.is_empty()) {
            Some(_) => all.extend(keys(tables, inner, &format!("{path}{field}{named}."))),
            None => all.push(format!("{path}{field}")),
        }
    }
    all
}

/// The keys that releasectl.toml.5 explains, each with whether it says that the host alone may say it.
fn explained_keys(page: &str) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let mut table = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix(".Ss ") {
            table = heading.trim_matches(['[', ']']).to_owned() + ".";
        } else if let Some(item) = line.strip_prefix(".It Ic ") {
            let (key, host) = item.split_once(' ').unwrap_or((item, ""));
            let top = table.starts_with("The ");
            found.insert(if top { key.to_owned() } else { format!("{table}{key}") }, host == "Pq host");
        }
    }
    found
}

#[test]
fn every_key_of_the_configuration_is_in_the_manual_and_no_other() {
    let code = text("src/recipe.rs");
    let known: BTreeSet<String> = keys(&tables(&code), "Settings", "").into_iter().collect();
    let page = page("releasectl.toml.5");
    let explained = explained_keys(&page);
    assert_eq!(explained.keys().cloned().collect::<BTreeSet<_>>(), known);
    for (key, host) in explained {
        let fault = parse(&format!("{key} = 1"), true).err().map(|fault| fault.message).unwrap_or_default();
        assert_eq!(fault.contains("is the host's to say"), host, "{key}: {fault}");
    }
    for choice in code.split("rename_all = \"lowercase\"").skip(1) {
        let body = choice.split('{').nth(1).unwrap().split('}').next().unwrap();
        let variants = body.lines().map(str::trim).filter_map(|line| line.strip_suffix(','));
        for variant in variants.map(str::to_lowercase) {
            assert!(page.contains(&format!("Qq {variant}")), "releasectl.toml.5 does not name the choice {variant:?}");
        }
    }
}
