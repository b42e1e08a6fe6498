//! What a terminal is given: nothing that was found on disk can move its cursor, colour it or forge a line.

use crate::sandbox::Sandbox;
use std::fs;

const ODD: &str = "x\u{1b}[31mred\rline\nA  ready\u{9b}2J";
const PLAIN: &str = r"x\u{1b}[31mred\rline\nA  ready\u{9b}2J";

#[test]
fn p18_a_name_with_control_characters_is_written_out_for_people_and_whole_for_programs() {
    let tree = Sandbox::with_live(&["A", "B"]);
    fs::create_dir(tree.release(ODD)).unwrap();
    fs::write(tree.release("A").join(ODD), "").unwrap();
    for colour in ["always", "never"] {
        for words in [&["list"][..], &["clean", "--dry-run"], &["clean"], &["verify", "A"]] {
            let answer = tree.run(&[&["--color", colour][..], words].concat());
            assert!(answer.stdout.contains(PLAIN), "{words:?}: {answer:?}");
            assert!(!answer.stdout.contains("\u{1b}[31mred"), "{words:?}: {answer:?}");
        }
    }
    assert!(tree.done(&["--color", "always", "list"]).contains("\u{1b}[32m"), "our own colours are there");
    assert_eq!(tree.json(&["list"])["foreign"][0], ODD);
    assert_eq!(tree.json(&["verify", "A"])["added"][0], ODD);
}

#[test]
fn p18_an_error_and_a_warning_are_written_out_too() {
    let tree = Sandbox::with_live(&["A"]);
    let said = tree.refused(&["create", "./no\u{1b}[2Jsource"]);
    assert!(said.contains(r"no\u{1b}[2Jsource") && !said.contains('\u{1b}'), "{said}");
    let root = tree.beside("odd\u{1b}[1mtree");
    fs::rename(tree.root(), &root).unwrap();
    let answer = tree.clean(crate::sandbox::PROGRAM).arg("--root").arg(&root).arg("path").output().unwrap();
    let path = format!("{}\n", root.join("releases/A").display());
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), path, "a path is for programs");
}
