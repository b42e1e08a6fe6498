//! P17: a tar that does what a release's code never does is refused by its member's name, and nothing outside the release
//! changes. Each is handed in by root and by an ordinary user.

use crate::code::Run;
use crate::lab::tar_of;
use crate::sandbox::{Answer, PROGRAM, Sandbox, is_root, picture};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use tar::{EntryType, Header};

/// One raw member: its name and link as they are, whatever a decent writer says.
fn member(name: &[u8], kind: EntryType, mode: u32, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Regular, 0o644, b"", content.as_bytes())
}

fn link(name: &str, to: &str) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Symlink, 0o777, to.as_bytes(), b"")
}

fn hard(name: &str, to: &str) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Link, 0o644, to.as_bytes(), b"")
}

fn odd(name: &str, kind: EntryType) -> Vec<u8> {
    member(name.as_bytes(), kind, 0o644, b"", b"")
}

/// Extended headers for the member that follows.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..).find(|length: &usize| length.to_string().len() + rest == *length).unwrap();
        text.extend_from_slice(format!("{length} {key}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    member(b"pax", EntryType::XHeader, 0o644, b"", &text)
}

/// The members, and the end mark.
fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A tree with a live release, something beside it that is to be attacked, and who works on it.
fn attacked(by_nobody: bool) -> Sandbox {
    let tree = Sandbox::with_live(&["LIVE"]);
    fs::create_dir(tree.beside("outside")).unwrap();
    fs::write(tree.beside("outside/victim"), "mine").unwrap();
    if by_nobody {
        tree.give_all_to_nobody();
    }
    tree
}

/// Hands `bytes` in; whatever comes of it, nothing outside the new release may have changed.
fn hand_in(tree: &Sandbox, by_nobody: bool, id: &str, bytes: &[u8]) -> Answer {
    let before = (picture(&tree.beside("outside")), picture(&tree.release("LIVE")), tree.live());
    let arguments = ["create", "-", "--id", id];
    let mut command = if by_nobody { tree.command_by_nobody(&arguments) } else { tree.command(&arguments) };
    let mut run = Run::start(command.stdin(Stdio::piped()));
    // It may be refused before it is read to its end.
    let _ = run.child().stdin.take().unwrap().write_all(bytes);
    let answer = run.answer();
    let after = (picture(&tree.beside("outside")), picture(&tree.release("LIVE")), tree.live());
    assert_eq!(after, before, "{id}: something outside the release changed");
    answer
}

/// A file of nothing but a hole, as GNU tar packs it by default.
fn holes() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("holes").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// Every trick that is refused: the bytes, the name that is told, and what is said of it.
fn tricks(outside: &str) -> Vec<(Vec<u8>, String, &'static str)> {
    let absolute = format!("{outside}/new");
    let case = |members: &[Vec<u8>], name: &str, why: &'static str| (tar(members), name.to_owned(), why);
    let mut damaged = tar(&[file("good", "x"), file("bad", "y")]);
    damaged[1024 + 10] ^= 1;
    let whole = tar(&[file("a", "x"), file("b", &"y".repeat(5000))]);
    let unfinished = [file("a", "x"), file("b", "y")].concat();
    let through = |to: &str| vec![link("way", to), file("way/new", "yours")];
    vec![
        case(&[file(&absolute, "yours")], &absolute, "absolute"),
        case(&[file("../../../outside/new", "yours")], "../../../outside/new", "leads out"),
        case(&[file("app/../../new", "yours")], "app/../../new", "leads out"),
        case(&through("../../../outside"), "way", "outside the release"),
        case(&through(outside), "way", "outside the release"),
        case(&[link("a/b/way", "../../..")], "a/b/way", "outside the release"),
        case(&[odd("inner/", EntryType::Directory), link("way", "inner"), file("way/new", "x")], "way/new", "a link"),
        case(&[link("name", "elsewhere"), file("name", "x")], "name", "came before"),
        case(&[file("name", "x"), file("name/below", "y")], "name/below", "a file or a link"),
        case(&[hard("stolen", "../../../outside/victim")], "stolen", "outside the release"),
        case(&[hard("stolen", &format!("{outside}/victim"))], "stolen", "outside the release"),
        case(&[hard("stolen", "../LIVE/version")], "stolen", "outside the release"),
        case(&[link("inner", "."), hard("twice", "inner/x")], "twice", "not there"),
        case(&[link("l", "x"), hard("twice", "l")], "twice", "no file"),
        case(&[holes()], "holes", "without --sparse"),
        case(&[odd("null", EntryType::Char)], "null", "neither a file"),
        case(&[odd("disk", EntryType::Block)], "disk", "neither a file"),
        case(&[odd("pipe", EntryType::Fifo)], "pipe", "neither a file"),
        case(&[member(b"su", EntryType::Regular, 0o4755, b"", b"x")], "su", "setuid"),
        case(&[member(b"sg", EntryType::Regular, 0o2755, b"", b"x")], "sg", "setgid"),
        case(&[member(b"d/", EntryType::Directory, 0o1777, b"", b"")], "d", "sticky"),
        case(&[file("twice", "x"), file("twice", "y")], "twice", "came before"),
        case(&[file("twice", "x"), file("./twice", "y")], "./twice", "came before"),
        case(&[file("Readme", "x"), file("README", "y")], "README", "came before"),
        case(&[file("App/a", "x"), file("app/a", "y")], "app/a", "came before"),
        case(&[file(".releasectl/release.json", "{}")], ".releasectl/release.json", "releasectl's own"),
        case(&[link(".releasectl", "app")], ".releasectl", "releasectl's own"),
        case(&[file("KEEP_UNTIL__forever", "")], "KEEP_UNTIL__forever", "releasectl's own"),
        (damaged, "good".into(), "damaged"),
        (whole[..2000].to_vec(), "b".into(), "cut short"),
        (unfinished, "b".into(), "cut short"),
        case(&[pax(&[("path", b"../../../outside/new")]), file("honest", "x")], "../../../outside/new", "leads out"),
        case(&[pax(&[("path", absolute.as_bytes())]), file("honest", "x")], &absolute, "absolute"),
        case(&[pax(&[("linkpath", outside.as_bytes())]), link("way", "app")], "way", "outside the release"),
        case(&[pax(&[("path", b"a\0b")]), file("honest", "x")], "a", ""),
        case(&[pax(&[("GNU.sparse.major", b"1")]), file("holes", "x")], "holes", "sparse"),
        case(&[pax(&[("path", b"a\nb")]), file("honest", "x")], "honest", "--no-acls"),
        case(&[pax(&[("size", b"99999999999999")]), file("huge", "x")], "huge", "room for"),
    ]
}

#[test]
fn p17_every_trick_is_refused_by_name_and_leaves_all_else_as_it_was() {
    for by_nobody in if is_root() { vec![false, true] } else { vec![false] } {
        let tree = attacked(by_nobody);
        let tricks = tricks(tree.beside("outside").to_str().unwrap());
        for (at, (bytes, name, why)) in tricks.iter().enumerate() {
            let id = format!("T{at}");
            let answer = hand_in(&tree, by_nobody, &id, bytes);
            assert_eq!(answer.code, 1, "{id} {name}: {}", answer.stderr);
            let told = answer.stderr.contains("the tar was refused at \"") && answer.stderr.contains(name);
            assert!(told && answer.stderr.contains(why), "{id} {name} {why}: {}", answer.stderr);
        }
        let states = tree.states();
        let failed = states.iter().filter(|(id, _)| *id != "LIVE");
        assert!(failed.clone().all(|(_, state)| state == "incomplete"), "{states:?}");
        assert_eq!(failed.count(), tricks.len());
        tree.done(&["clean"]);
        assert_eq!(tree.states().len(), 1);
    }
}

#[test]
fn p17_names_with_a_line_break_or_a_terminals_code_are_never_told_raw_nor_mistaken() {
    let tree = attacked(false);
    let odd_names = [&b"../new\nline"[..], b"../new \x1b[31mred", b"honest\n9 path=x"];
    for (at, name) in odd_names.into_iter().enumerate() {
        let answer = hand_in(&tree, false, &format!("N{at}"), &tar(&[pax(&[("path", name)]), file("x", "x")]));
        assert_eq!(answer.code, 1, "{}", answer.stderr);
        assert!(answer.stderr.contains("the tar was refused at \""), "{}", answer.stderr);
        assert!(!answer.stderr.contains('\x1b') && !answer.stderr.contains("\nline"), "{:?}", answer.stderr);
    }
    // The older way to tell a long name holds any byte, and a line break in a name is harmless.
    let long = member(b"././@LongLink", EntryType::GNULongName, 0o644, b"", b"new\nline\0");
    assert_eq!(hand_in(&tree, false, "M", &tar(&[long, file("x", "x")])).code, 0);
    assert!(tree.release("M").join("new\nline").exists());
    assert_eq!(tree.json(&["verify", "M"])["ok"], true);
}

#[test]
fn p17_ten_gigabytes_of_zeros_are_refused_long_before_the_disk_is_full() {
    let tree = attacked(false);
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    // Ten members of a gigabyte each, compressed to a few megabytes. The same compressed zeros serve all the time: gzip
    // takes members one after the other.
    let mut piece = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut std::io::repeat(0).take(1 << 24), &mut piece).unwrap();
    let gigabyte = piece.finish().unwrap().repeat(1 << 6);
    let mut bomb = Vec::new();
    for at in 0..10 {
        header.set_path(format!("zeros-{at}")).unwrap();
        header.set_cksum();
        let mut head = GzEncoder::new(Vec::new(), Compression::fast());
        head.write_all(header.as_bytes()).unwrap();
        bomb.extend(head.finish().unwrap());
        bomb.extend_from_slice(&gigabyte);
    }
    let answer = hand_in(&tree, false, "B", &bomb);
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    let early = ["zeros-0", "zeros-1", "zeros-2"].iter().any(|name| answer.stderr.contains(name));
    assert!(early, "{}", answer.stderr);
    tree.done(&["clean"]);
    assert!(!tree.release("B").exists());
}

#[test]
fn p17_a_gigabyte_of_a_name_is_refused_before_it_is_in_memory() {
    let tree = attacked(false);
    let mut piece = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut std::io::repeat(b'x').take(1 << 24), &mut piece).unwrap();
    let gigabyte = piece.finish().unwrap().repeat(1 << 6);
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = Header::new_gnu();
        header.set_path("name").unwrap();
        header.set_entry_type(kind);
        header.set_size(1 << 30);
        header.set_cksum();
        let mut head = GzEncoder::new(Vec::new(), Compression::fast());
        head.write_all(&[&file("honest", "x"), &header.as_bytes()[..]].concat()).unwrap();
        let bomb = [head.finish().unwrap(), gigabyte.clone()].concat();
        fs::write(tree.beside("bomb"), bomb).unwrap();
        let mut command = tree.clean("prlimit");
        command.arg("--as=536870912").arg(PROGRAM).arg("--root").arg(tree.root());
        let answer: Answer = command.args(["create", "bomb", "--id", "B"]).output().unwrap().into();
        assert_eq!(answer.code, 1, "{kind:?}: {}", answer.stderr);
        assert!(answer.stderr.contains("\"honest\"") && answer.stderr.contains("a bomb"), "{}", answer.stderr);
        tree.done(&["remove", "B"]);
    }
}

#[test]
fn p17_a_hundred_thousand_members_are_a_release_if_there_is_room() {
    let tree = attacked(false);
    let members: Vec<(String, &[u8])> =
        (0..100_000).map(|at| (format!("node_modules/{}/{at}.js", at / 1000), &b""[..])).collect();
    let named: Vec<(&str, &[u8])> = members.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    let answer = hand_in(&tree, false, "MANY", &tar_of(&named));
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert_eq!(fs::read_dir(tree.release("MANY").join("node_modules")).unwrap().count(), 100);
    tree.done(&["remove", "MANY"]);
    assert!(!tree.release("MANY").exists());
}
