//! Releases from tars: honest ones come out as they went in, hostile and damaged ones are refused by the member's name.

use crate::sandbox::{Answer, PROGRAM, Sandbox, picture};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A directory with everything an honest tar may hold.
fn honest(tree: &Sandbox) -> PathBuf {
    let source = tree.source("honest");
    let long = source.join("long".repeat(30)).join("name".repeat(30));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("x".repeat(200)), "long").unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("blob"), (0..200_000_u32).map(|n| (n * 31 % 251) as u8).collect::<Vec<_>>()).unwrap();
    fs::write(source.join("sp ace é \t"), "odd").unwrap();
    fs::write(source.join("run"), "#!/bin/sh\n").unwrap();
    for (name, mode) in [("run", 0o755), ("version", 0o600), ("app", 0o750)] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::hard_link(source.join("run"), source.join("app/run-too")).unwrap();
    symlink("../run", source.join("app/link")).unwrap();
    symlink("app", source.join("dir-link")).unwrap();
    symlink("not-there", source.join("dangling")).unwrap();
    source
}

/// What tar(1) makes of `source` with these options.
fn tar(tree: &Sandbox, source: &Path, options: &[&str]) -> Vec<u8> {
    let output =
        tree.clean("tar").args(["-C", source.to_str().unwrap(), "-c"]).args(options).arg(".").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// `create -` with `bytes` on standard input.
fn create(tree: &Sandbox, id: &str, bytes: &[u8]) -> Answer {
    let mut command = tree.command(&["create", "-", "--id", id]);
    let mut run = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whoever refuses a tar need not read it to its end.
    let _ = run.stdin.take().unwrap().write_all(bytes);
    run.wait_with_output().unwrap().into()
}

fn code(tree: &Sandbox, id: &str) -> std::collections::BTreeMap<PathBuf, String> {
    let mut code = picture(&tree.release(id));
    code.retain(|path, _| !path.starts_with(".releasectl"));
    code
}

#[test]
fn an_honest_tar_comes_out_as_it_went_in_however_it_was_packed() {
    let tree = Sandbox::laid_out();
    let source = honest(&tree);
    let options: [&[&str]; 8] = [
        &["--format=gnu"],
        &["--format=pax"],
        &["--format=gnu", "--gzip"],
        &["--format=pax", "--zstd"],
        &["--format=posix", "--blocking-factor=1"],
        &["--format=gnu", "--sort=name", "--use-compress-program=zstd -19 --long"],
        &["--format=pax", "--use-compress-program=gzip -1"],
        &["--format=gnu", "--blocking-factor=200"],
    ];
    for (n, options) in options.into_iter().enumerate() {
        let bytes = tar(&tree, &source, options);
        let piped = create(&tree, &format!("piped-{n}"), &bytes);
        assert_eq!(piped.code, 0, "{options:?}: {}", piped.stderr);
        // The name says nothing; the first bytes do.
        fs::write(tree.beside("code.dat"), &bytes).unwrap();
        tree.done(&["create", "code.dat", "--id", &format!("named-{n}")]);
        for id in [format!("piped-{n}"), format!("named-{n}")] {
            assert_eq!(code(&tree, &id), picture(&source), "{options:?}");
        }
    }
    let time = |path: PathBuf| fs::symlink_metadata(path).unwrap().modified().unwrap();
    let whole = |path: PathBuf| time(path).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(whole(tree.release("piped-0").join("blob")), whole(source.join("blob")));
}

#[test]
fn a_tar_of_many_files_comes_out_whole_though_several_write_it() {
    let tree = Sandbox::laid_out();
    let source = tree.source("many");
    for n in 0..1500_u32 {
        let path = source.join(format!("{}/{}/{n}", n % 7, n % 31));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Around the length from which on a file is not held in memory, too.
        let length = if n % 100 == 0 { 131_071 + n / 100 % 3 } else { n % 5000 };
        fs::write(&path, vec![n as u8; length as usize]).unwrap();
        // Nothing that an umask takes away from an ordinary user's files.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | (n & 0o55))).unwrap();
        if n % 3 == 0 {
            fs::hard_link(&path, path.with_extension("too")).unwrap();
        }
    }
    let list = tree.clean("find").args(["source-many", "-type", "f", "-printf", "%P\\0"]).output().unwrap();
    fs::write(tree.beside("list"), list.stdout).unwrap();
    let list = format!("--files-from={}", tree.beside("list").display());
    // With the directories before what is in them, and without any.
    for (id, options) in [("with", &["--sort=name", "."][..]), ("without", &["--null", &list])] {
        let packed = tree.clean("tar").args(["-c", "-C", "source-many"]).args(options).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let answer = create(&tree, id, &packed.stdout);
        assert_eq!(answer.code, 0, "{id}: {}", answer.stderr);
        let (mut wanted, mut there) = (picture(&source), code(&tree, id));
        if id == "without" {
            wanted.retain(|path, _| !source.join(path).is_dir());
            there.retain(|path, _| !source.join(path).is_dir());
        }
        assert_eq!(there, wanted, "{id}");
    }
}

#[test]
fn a_stream_of_several_compressed_parts_is_one_tar() {
    let tree = Sandbox::laid_out();
    let source = honest(&tree);
    let bytes = tar(&tree, &source, &["--format=gnu"]);
    // pzstd has a frame of no content before each part, what can be searched has one at the end.
    let skipped: &[u8] = b"\x5a\x2a\x4d\x18\x03\0\0\0any";
    for (id, program, between) in [("gzip", "gzip", &b""[..]), ("zstd", "zstd", b""), ("pzstd", "zstd", skipped)] {
        let mut packed = between.to_vec();
        for part in bytes.chunks(bytes.len() / 3 + 1) {
            fs::write(tree.beside("part"), part).unwrap();
            packed.extend(tree.clean(program).args(["-q", "-c", "part"]).output().unwrap().stdout);
            packed.extend(between);
        }
        let answer = create(&tree, id, &packed);
        assert_eq!(answer.code, 0, "{id}: {}", answer.stderr);
        assert_eq!(code(&tree, id), picture(&source), "{id}");
        if between == skipped {
            let cut = &packed[..packed.len() - 2];
            assert_eq!(create(&tree, "cut", cut).code, 1, "it is short of the end it announces");
        }
    }
}

/// A member as a hostile hand writes it: no check of anything, the checksum alone is right.
fn member(name: &str, kind: u8, link: &str, mode: &[u8; 8], data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    let raw = header.as_mut_bytes();
    raw[..name.len()].copy_from_slice(name.as_bytes());
    raw[100..108].copy_from_slice(mode);
    raw[156] = kind;
    raw[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

const PLAIN: &[u8; 8] = b"0000644\0";

fn file(name: &str, data: &str) -> Vec<u8> {
    member(name, b'0', "", PLAIN, data.as_bytes())
}

fn link(name: &str, target: &str) -> Vec<u8> {
    member(name, b'2', target, b"0000777\0", b"")
}

fn whole(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.extend([0; 1024]);
    bytes
}

/// Hostile tars, and the member each must be refused for.
fn hostile(outside: &Path) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let outside = outside.to_str().unwrap();
    let with_mode = |mode| vec![file("a", ""), member("bad", b'0', "", mode, b"x")];
    let of_kind = |kind| vec![member("bad", kind, "", PLAIN, b"")];
    vec![
        ("bad", with_mode(b"0004755\0")),
        ("bad", with_mode(b"0002755\0")),
        ("bad", with_mode(b"0001777\0")),
        ("bad", of_kind(b'3')),
        ("bad", of_kind(b'4')),
        ("bad", of_kind(b'6')),
        ("bad", of_kind(b'V')),
        ("/tmp/releasectl-absolute", vec![file("/tmp/releasectl-absolute", "out")]),
        ("../out", vec![file("../out", "out")]),
        ("a/../../out", vec![file("a/x", ""), file("a/../../out", "out")]),
        ("../out", vec![member("../out", b'5', "", b"0000755\0", b"")]),
        ("out", vec![link("out", outside)]),
        ("out", vec![link("out", "../../..")]),
        ("a/out", vec![link("a/out", "../../x")]),
        // Each leads nowhere bad taken alone; together they lead out.
        ("two", vec![link("one", "."), link("two", "one/../..")]),
        ("two", vec![link("one", "."), link("two", "one/..")]),
        ("b/out", vec![link("b", "a"), file("b/out", "through a link")]),
        ("b/c/out", vec![member("a", b'5', "", b"0000755\0", b""), link("b", "a"), file("b/c/out", "")]),
        ("b", vec![link("b", "a"), file("b", "over a link")]),
        ("b", vec![file("b", "first"), file("b", "second")]),
        ("readme", vec![file("README", "first"), file("readme", "second")]),
        ("a/b", vec![file("a", "a file"), file("a/b", "below a file")]),
        ("out", vec![member("out", b'1', "/etc/passwd", PLAIN, b"")]),
        ("out", vec![member("out", b'1', "../../../.releasectl/lock", PLAIN, b"")]),
        ("out", vec![link("b", "a"), member("out", b'1', "b", PLAIN, b"")]),
        ("out", vec![member("out", b'1', "not-there", PLAIN, b"")]),
        (".releasectl/release.json", vec![file(".releasectl/release.json", "{}")]),
        ("./.releasectl", vec![member("./.releasectl", b'5', "", b"0000777\0", b"")]),
        ("KEEP_UNTIL__forever", vec![file("KEEP_UNTIL__forever", "")]),
        ("b", vec![member("b", b'0', "", b"zzzzzzz\0", b"")]),
    ]
}

#[test]
fn p17_a_hostile_tar_is_refused_by_the_members_name_and_writes_nothing_outside() {
    let tree = Sandbox::with_live(&["A"]);
    let precious = tree.source("precious");
    let others = |tree: &Sandbox| {
        let mut all = picture(&tree.beside(""));
        let ours = ["tree/releases/hostile", "tree/.releasectl"];
        all.retain(|path, _| !ours.iter().any(|ours| path.to_string_lossy().starts_with(ours)));
        all.remove(Path::new("tree/releases"));
        all
    };
    let before = others(&tree);
    for (n, (name, members)) in hostile(&precious).into_iter().enumerate() {
        let id = format!("hostile-{n}");
        let answer = create(&tree, &id, &whole(&members));
        assert_eq!(answer.code, 1, "{n} {name}: {}", answer.stderr);
        assert!(answer.stderr.contains(&format!("{name:?}")), "{n} {name}: {}", answer.stderr);
        assert!(answer.stderr.contains("hint: "), "{}", answer.stderr);
        assert_eq!(tree.states()[&id], "incomplete", "{n} {name}");
        tree.refused(&["activate", &id]);
        assert_eq!(others(&tree), before, "{n} {name}");
        let inside = picture(&tree.release(&id)).into_keys().filter(|path| !path.starts_with(".releasectl"));
        for path in inside {
            let metadata = fs::symlink_metadata(tree.release(&id).join(&path)).unwrap();
            assert!(metadata.is_dir() || metadata.is_symlink() || metadata.is_file(), "{}", path.display());
        }
    }
    assert!(!Path::new("/tmp/releasectl-absolute").exists());
    assert_eq!(tree.live().as_deref(), Some("A"));
    // All of it can be cleaned away, and the ids are free again.
    tree.done(&["clean"]);
    assert_eq!(tree.states().len(), 1);
}

#[test]
fn p17_a_tar_cut_short_anywhere_makes_no_release() {
    let tree = Sandbox::laid_out();
    let members = [file("first", &"1".repeat(700)), file("second", "2"), link("third", "first"), file("last", "4")];
    let bytes = whole(&members);
    let end = bytes.len() - 1024;
    let packed = |program: &str| {
        fs::write(tree.beside("whole.tar"), &bytes).unwrap();
        tree.clean(program).args(["-q", "-c", "whole.tar"]).output().unwrap().stdout
    };
    let (gz, zst) = (packed("gzip"), packed("zstd"));
    let cuts = |length: usize, step: usize| (0..length).step_by(step).chain([length - 1]);
    let plain = cuts(end + 1, 128).map(|cut| &bytes[..cut]);
    let (gz, zst) = (cuts(gz.len(), 16).map(|cut| &gz[..cut]), cuts(zst.len(), 16).map(|cut| &zst[..cut]));
    for (n, cut) in plain.chain(gz).chain(zst).enumerate() {
        let id = format!("cut-{n}");
        let answer = create(&tree, &id, cut);
        assert_eq!(answer.code, 1, "{} bytes {:?}: {}", cut.len(), cut.get(..4), answer.stderr);
        assert!(answer.stderr.contains("error: ") && answer.stderr.contains("hint: "), "{}", answer.stderr);
    }
    assert!(tree.states().values().all(|state| state == "incomplete"));
}

#[test]
fn p17_a_tar_with_a_wrong_checksum_makes_no_release() {
    let tree = Sandbox::laid_out();
    for offset in [0, 100, 124, 148, 156, 257] {
        let mut bytes = whole(&[file("first", "1"), file("second", "2"), file("third", "3")]);
        bytes[1024 + offset] ^= 1;
        let answer = create(&tree, &format!("flipped-{offset}"), &bytes);
        assert_eq!(answer.code, 1, "{offset}: {}", answer.stderr);
        assert!(answer.stderr.contains("\"first\""), "what came before it is named: {}", answer.stderr);
    }
    assert!(tree.states().values().all(|state| state == "incomplete"));
}

#[test]
fn p17_what_is_no_tar_at_all_makes_no_release() {
    let tree = Sandbox::laid_out();
    let noise: Vec<u8> = (0..9000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (n, bytes) in [&b""[..], b"x", &noise, b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"].into_iter().enumerate()
    {
        let answer = create(&tree, &format!("noise-{n}"), bytes);
        assert_eq!(answer.code, 1, "{n}: {}", answer.stderr);
        assert!(answer.stderr.contains("it is no tar"), "{n}: {}", answer.stderr);
        // Nothing of it reaches the terminal as it is.
        assert!(!answer.stderr.chars().any(|c| c.is_control() && c != '\n'), "{n}: {:?}", answer.stderr);
    }
    for (id, bytes, why) in [
        ("nothing", &b""[..], "there is nothing in it"),
        (
            "page",
            &[&b"<html>not found</html>"[..], &[b' '; 1024]].concat(),
            "no header of a tar is where one should be",
        ),
    ] {
        let said = create(&tree, id, bytes).stderr;
        assert!(said.contains(why) && !said.contains("html"), "{said}");
    }
    assert!(tree.states().values().all(|state| state == "incomplete"));
}

#[test]
fn p17_a_tar_whose_padding_does_not_end_is_refused() {
    let tree = Sandbox::laid_out();
    let mut create = tree.command(&["create", "-"]);
    let answer: Answer = create.stdin(fs::File::open("/dev/zero").unwrap()).output().unwrap().into();
    assert!(answer.code == 1 && answer.stderr.contains("what follows the end mark does not end"), "{answer:?}");
}

#[test]
fn a_terminal_hands_in_no_tar_and_is_not_waited_for() {
    let tree = Sandbox::laid_out();
    let line = format!("{PROGRAM} --root {} create -", tree.root().display());
    let output = tree.clean("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(3) && said.contains("standard input is a terminal"), "{said}");
    assert!(tree.states().is_empty());
}

#[test]
fn what_is_packed_in_another_way_is_told_so() {
    let tree = Sandbox::laid_out();
    let others = [(&b"\xfd7zXZ\0\0\x04"[..], "an xz"), (b"BZh91AY&SY", "a bzip2"), (b"PK\x03\x04", "a zip")];
    for (n, (bytes, name)) in others.into_iter().enumerate() {
        let answer = create(&tree, &format!("other-{n}"), bytes);
        let told = answer.stderr.contains(&format!("it is {name} file; gzip and zstd are read"));
        assert!(answer.code == 1 && told, "{}", answer.stderr);
    }
}

#[test]
fn p17_a_member_that_says_it_is_larger_than_the_disk_is_refused_at_once() {
    let tree = Sandbox::laid_out();
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 60);
    header.set_cksum();
    let answer = create(&tree, "A", header.as_bytes());
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    assert!(answer.stderr.contains("\"huge\""), "{}", answer.stderr);
}

#[test]
fn p15_a_tar_that_cannot_be_read_is_told_by_its_path_and_never_taken_for_damaged() {
    let tree = Sandbox::laid_out();
    let source = honest(&tree);
    for (ending, option) in [("tar", "--format=gnu"), ("tar.gz", "--gzip"), ("tar.zst", "--zstd")] {
        let file = tree.beside(&format!("code.{ending}"));
        fs::write(&file, tar(&tree, &source, &[option])).unwrap();
        let create = |errno: &str, nth: u32| -> Answer {
            let (id, inject) = (format!("{ending}-{errno}-{nth}"), format!("inject=read:error={errno}:when={nth}"));
            let mut command = tree.clean("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=read", "-e", &inject, "-P"]).arg(&file);
            command.arg(PROGRAM).arg("--root").arg(tree.root()).args(["create", "--id", &id]).arg(&file);
            command.output().unwrap().into()
        };
        let mut failed = 0;
        for nth in 1.. {
            let answer = create("EIO", nth);
            if answer.code == 0 {
                break;
            }
            failed += 1;
            let said = format!("error: cannot read {}: Input/output error", file.display());
            assert!(answer.code == 1 && answer.stderr.contains(&said), "{ending} {nth}: {}", answer.stderr);
            let answer = create("EINTR", nth);
            assert_eq!(answer.code, 0, "{ending} {nth}: {}", answer.stderr);
            assert_eq!(code(&tree, &format!("{ending}-EINTR-{nth}")), code(&tree, &format!("{ending}-EINTR-1")));
        }
        assert!(failed > 1, "{ending}: no read was met");
    }
}
