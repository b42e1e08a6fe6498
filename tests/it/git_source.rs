//! Releases from git repositories of every kind, at every kind of ref.

use crate::sandbox::{PROGRAM, Sandbox, picture};
use std::fs;
use std::path::{Path, PathBuf};

/// A tree and a repository of three commits: `one` with the tag v1, `two` on the branch `side`, `three` on master.
struct Bench {
    tree: Sandbox,
    repository: PathBuf,
    one: String,
    two: String,
    three: String,
}

impl Bench {
    fn new() -> Self {
        let tree = Sandbox::laid_out();
        let repository = tree.repository("app");
        let one = tree.git(&repository, &["rev-parse", "HEAD"]);
        tree.git(&repository, &["tag", "--annotate", "v1", "--message", "v1"]);
        let commit = |word: &str| {
            fs::write(repository.join("version"), format!("{word}\n")).unwrap();
            tree.commit(&repository, word)
        };
        tree.git(&repository, &["checkout", "--quiet", "-b", "side"]);
        let two = commit("2");
        tree.git(&repository, &["checkout", "--quiet", "master"]);
        let three = commit("3");
        Self { tree, repository, one, two, three }
    }

    /// Builds a release from `source`, which must give `commit`.
    #[track_caller]
    fn gives(&self, source: &Path, reference: Option<&str>, commit: &str) {
        let mut words = vec!["create", source.to_str().unwrap()];
        words.extend(reference.iter().flat_map(|reference| ["--ref", reference]));
        let document = self.tree.json(&words);
        let release = &document["release"];
        assert_eq!(release["revision"], commit, "{source:?} {reference:?}: {document}");
        let number = [&self.one, &self.two, &self.three].iter().position(|hash| *hash == commit).unwrap() + 1;
        let version = Path::new(release["path"].as_str().unwrap()).join("version");
        assert_eq!(fs::read_to_string(version).unwrap(), format!("{number}\n"));
        assert_eq!(release["ref"].as_str(), reference);
    }
}

#[test]
fn a_ref_is_a_branch_a_tag_a_hash_or_any_other_name_git_knows() {
    let bench = Bench::new();
    let (source, git) = (&bench.repository, |words: &[&str]| bench.tree.git(&bench.repository, words));
    bench.gives(source, None, &bench.three);
    for name in ["HEAD", "master", "refs/heads/master", "heads/master"] {
        bench.gives(source, Some(name), &bench.three);
    }
    bench.gives(source, Some("side"), &bench.two);
    for name in ["v1", "refs/tags/v1", "master~1", "HEAD~1", "@^"] {
        bench.gives(source, Some(name), &bench.one);
    }
    for hash in [&bench.one, &bench.two, &bench.three] {
        bench.gives(source, Some(hash), hash);
        bench.gives(source, Some(&hash[..9]), hash);
    }
    git(&["update-ref", "refs/pull/1/head", &bench.two]);
    bench.gives(source, Some("refs/pull/1/head"), &bench.two);
    git(&["checkout", "--quiet", "--detach", &bench.one]);
    bench.gives(source, None, &bench.one);
}

#[test]
fn a_repository_whose_head_leads_nowhere_has_what_can_be_named() {
    let bench = Bench::new();
    bench.tree.git(&bench.repository, &["symbolic-ref", "HEAD", "refs/heads/renamed"]);
    let said = bench.tree.refused(&["create", bench.repository.to_str().unwrap()]);
    assert!(said.contains("has no commit at its HEAD") && said.contains("--ref names it"), "{said}");
    bench.gives(&bench.repository, Some("side"), &bench.two);
}

#[test]
fn a_name_that_is_both_a_tag_and_a_branch_is_told_of_and_each_can_be_named() {
    let bench = Bench::new();
    bench.tree.git(&bench.repository, &["tag", "side", &bench.one]);
    bench.gives(&bench.repository, Some("side"), &bench.one);
    for (name, commit) in [("refs/heads/side", &bench.two), ("heads/side", &bench.two), ("tags/side", &bench.one)] {
        bench.gives(&bench.repository, Some(name), commit);
    }
    let source = bench.repository.to_str().unwrap();
    let said = |name: &str| bench.tree.ends(0, &["create", source, "--ref", name]).stderr;
    assert!(said("side").contains("warning: side is a tag and a branch") && said("side").contains("refs/heads/side"));
    for name in ["refs/heads/side", "master", "v1", &bench.one[..9]] {
        assert!(!said(name).contains("warning"), "{name}");
    }
}

#[test]
fn a_ref_that_no_clone_would_bring_is_fetched_by_its_full_name() {
    let bench = Bench::new();
    bench.tree.git(&bench.repository, &["update-ref", "refs/pull/1/head", &bench.two]);
    bench.tree.git(&bench.repository, &["branch", "--quiet", "-D", "side"]);
    let url = PathBuf::from(format!("file://{}", bench.repository.display()));
    bench.gives(&url, Some("refs/pull/1/head"), &bench.two);
    bench.gives(&url, None, &bench.three);
    bench.gives(&url, Some("v1"), &bench.one);
    bench.gives(&url, Some(&bench.one[..8]), &bench.one);
}

#[test]
fn a_second_create_sees_what_was_committed_meanwhile() {
    let bench = Bench::new();
    bench.gives(&bench.repository, None, &bench.three);
    fs::write(bench.repository.join("version"), "4\n").unwrap();
    let four = bench.tree.commit(&bench.repository, "four");
    let document = bench.tree.json(&["create", bench.repository.to_str().unwrap()]);
    assert_eq!(document["release"]["revision"], four);
    // A branch that was moved back and one that is gone are no longer what they were.
    bench.tree.git(&bench.repository, &["reset", "--quiet", "--hard", &bench.one]);
    bench.tree.git(&bench.repository, &["branch", "--quiet", "-D", "side"]);
    bench.gives(&bench.repository, Some("master"), &bench.one);
    bench.tree.refused(&["create", bench.repository.to_str().unwrap(), "--ref", "side"]);
}

#[test]
fn only_what_is_committed_comes_into_a_release() {
    let bench = Bench::new();
    fs::write(bench.repository.join("version"), "dirty\n").unwrap();
    fs::write(bench.repository.join("untracked"), "").unwrap();
    bench.gives(&bench.repository, None, &bench.three);
    // As a directory it is what it is, but for git's own records being there too.
    let source = bench.repository.to_str().unwrap();
    bench.tree.done(&["create", source, "--as", "dir", "--id", "dirty"]);
    let release = bench.tree.release("dirty");
    assert_eq!(fs::read_to_string(release.join("version")).unwrap(), "dirty\n");
    assert!(release.join("untracked").exists());
    assert_eq!(bench.tree.json(&["show", "dirty"])["release"]["revision"], serde_json::Value::Null);
}

#[test]
fn a_source_may_be_bare_shallow_or_a_work_tree_of_another() {
    let bench = Bench::new();
    let (tree, source) = (&bench.tree, bench.repository.to_str().unwrap());
    let beside = tree.beside("");
    tree.git(&beside, &["clone", "--quiet", "--bare", source, "bare.git"]);
    bench.gives(&tree.beside("bare.git"), Some("side"), &bench.two);
    tree.git(&beside, &["clone", "--quiet", "--depth", "1", &format!("file://{source}"), "shallow"]);
    bench.gives(&tree.beside("shallow"), None, &bench.three);
    tree.git(&bench.repository, &["worktree", "add", "--quiet", "--detach", "../linked", &bench.two]);
    bench.gives(&tree.beside("linked"), None, &bench.two);
    // A directory below a repository is a directory.
    let inner = bench.repository.join("inner");
    fs::create_dir(&inner).unwrap();
    let document = tree.json(&["create", inner.to_str().unwrap()]);
    assert_eq!(document["release"]["revision"], serde_json::Value::Null);
}

#[test]
fn a_repository_that_cannot_be_looked_at_is_not_taken_for_a_directory() {
    let bench = Bench::new();
    let git = bench.repository.join(".git");
    let mut strace = bench.tree.clean("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(&git).args(["-e", "inject=statx,newfstatat:error=EIO"]);
    strace.arg(PROGRAM).arg("--root").arg(bench.tree.root()).arg("create").arg(&bench.repository);
    let output = strace.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot look at {}: Input/output error", git.display())), "{said}");
    assert_eq!(fs::read_dir(bench.tree.at("releases")).unwrap().count(), 0);
}

#[test]
fn a_url_is_one_in_a_directory_that_is_not_ours_to_look_into() {
    let bench = Bench::new();
    let url = format!("file://{}", bench.repository.display());
    let mut strace = bench.tree.clean("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-P", &url, "-e", "inject=statx,stat,newfstatat:error=EACCES"]);
    let output = strace.arg(PROGRAM).arg("--root").arg(bench.tree.root()).args(["create", &url]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_ref_that_is_not_there_leaves_nothing_behind() {
    let bench = Bench::new();
    let source = bench.repository.to_str().unwrap();
    let (states, history) = (bench.tree.states(), bench.tree.history());
    let unknown = "0123456789012345678901234567890123456789";
    for name in ["no-such-branch", unknown, "", "-x", "--upload-pack=touch x", "a b", "v1^{tree}", "master:version"] {
        let said = bench.tree.ends(3, &["create", source, &format!("--ref={name}")]).stderr;
        assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
        assert_eq!((bench.tree.states(), bench.tree.history()), (states.clone(), history.clone()), "{name:?}");
    }
}

#[test]
fn a_repository_without_a_commit_is_refused() {
    let tree = Sandbox::laid_out();
    tree.git(&tree.beside(""), &["init", "--quiet", "empty"]);
    tree.git(&tree.beside(""), &["init", "--quiet", "--bare", "empty.git"]);
    for name in ["empty", "empty.git"] {
        let said = tree.refused(&["create", tree.beside(name).to_str().unwrap()]);
        assert!(said.contains("commit"), "{said}");
    }
    assert!(tree.states().is_empty());
}

#[test]
fn a_repository_that_is_damaged_fails_with_gits_own_words() {
    let bench = Bench::new();
    let blob = bench.tree.git(&bench.repository, &["rev-parse", "HEAD:version"]);
    fs::remove_file(bench.repository.join(".git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let said = bench.tree.ends(1, &["create", bench.repository.to_str().unwrap()]).stderr;
    assert!(said.contains("git fetch failed") && said.contains("fatal: "), "{said}");
}

#[test]
fn what_surrounds_the_call_does_not_change_what_is_built() {
    let bench = Bench::new();
    let other = bench.tree.repository("other");
    let mut command = bench.tree.command(&["create", bench.repository.to_str().unwrap(), "--id", "A"]);
    command.env("GIT_DIR", other.join(".git")).env("GIT_WORK_TREE", &other).env("GIT_INDEX_FILE", other.join("x"));
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "core.bare").env("GIT_CONFIG_VALUE_0", "nonsense");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bench.tree.json(&["show", "A"])["release"]["revision"], bench.three);
}

#[test]
fn a_system_that_gives_no_thread_gets_the_same_release() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    fs::write(repository.join("releasectl.toml"), "[shared]\ncarry = ['node_modules']\n").unwrap();
    for number in 0..300 {
        fs::create_dir_all(repository.join(format!("d{}", number % 9))).unwrap();
        fs::write(repository.join(format!("d{}/{number}", number % 9)), format!("{number}\n")).unwrap();
    }
    tree.commit(&repository, "many");
    let source = repository.to_str().unwrap();
    tree.ends(0, &["create", source, "--id", "A"]);
    tree.ends(0, &["activate", "A"]);
    fs::create_dir_all(tree.release("A").join("node_modules/a/b")).unwrap();
    fs::write(tree.release("A").join("node_modules/a/b/c"), "carried\n").unwrap();
    // No address space holds such a stack, so that no thread can be made.
    let alone = |words: &[&str]| {
        let output = tree.command(words).env("RUST_MIN_STACK", (1_u64 << 50).to_string()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    alone(&["create", source, "--id", "B"]);
    alone(&["verify", "B"]);
    assert_eq!(fs::read(tree.release("B").join("node_modules/a/b/c")).unwrap(), b"carried\n");
    let code = |id: &str| {
        let mut code = picture(&tree.release(id));
        code.retain(|path, _| !path.starts_with(".releasectl"));
        code
    };
    assert_eq!(code("A"), code("B"));
    alone(&["remove", "B"]);
}

#[test]
fn p12_a_mirror_that_git_did_not_finish_is_finished() {
    let bench = Bench::new();
    bench.gives(&bench.repository, None, &bench.three);
    let mirrors = bench.tree.at(".releasectl/mirror");
    let mirror = fs::read_dir(&mirrors).unwrap().next().unwrap().unwrap().path();
    // What `git init` has not yet made when it is killed: some versions write HEAD last, some objects.
    for missing in [&["objects"][..], &["objects", "config"], &["HEAD", "refs", "objects"], &[]] {
        fs::remove_dir_all(&mirror).unwrap();
        bench.tree.git(&mirrors, &["init", "--quiet", "--bare", mirror.to_str().unwrap()]);
        for name in missing.iter().map(|name| mirror.join(name)) {
            fs::remove_file(&name).or_else(|_| fs::remove_dir_all(&name)).unwrap();
        }
        if missing.is_empty() {
            // A power cut: the name is there, the bytes are not.
            fs::write(mirror.join("HEAD"), "").unwrap();
        }
        bench.gives(&bench.repository, None, &bench.three);
    }
}

#[test]
fn verify_says_that_it_had_no_contents_to_compare_where_somebody_removed_the_mirrors() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    tree.done(&["create", repository.to_str().unwrap(), "--id", "A"]);
    fs::remove_dir_all(tree.at(".releasectl/mirror")).unwrap();
    let answer = tree.ends(0, &["verify", "A"]);
    assert!(answer.stderr.contains("contents were not compared"), "{}", answer.stderr);
    fs::write(tree.release("A").join("version"), "other\n").unwrap();
    assert!(tree.ends(1, &["verify", "A"]).stdout.contains("version"));
}

#[test]
fn what_a_git_that_was_killed_left_in_a_mirror_does_not_stay() {
    let bench = Bench::new();
    bench.gives(&bench.repository, None, &bench.three);
    let mirrors = bench.tree.at(".releasectl/mirror");
    let mirror = fs::read_dir(&mirrors).unwrap().next().unwrap().unwrap().path();
    // With the one of its maintenance git never packs anew again, and never what is marked to be kept.
    let left = [
        "packed-refs.lock",
        "shallow.lock",
        "refs/heads/master.lock",
        "objects/maintenance.lock",
        "objects/info/commit-graph.lock",
        "objects/pack/pack-1.keep",
        "objects/pack/tmp_pack_a1",
    ];
    for name in left {
        fs::create_dir_all(mirror.join(name).parent().unwrap()).unwrap();
        fs::write(mirror.join(name), "").unwrap();
    }
    bench.gives(&bench.repository, None, &bench.three);
    let stays = left.into_iter().filter(|name| mirror.join(name).exists()).collect::<Vec<_>>();
    assert!(stays.is_empty(), "{stays:?}");
}

#[test]
fn p13_a_mirror_that_was_damaged_is_fetched_anew() {
    let bench = Bench::new();
    bench.gives(&bench.repository, None, &bench.three);
    let mirrors = bench.tree.at(".releasectl/mirror");
    let mirror = fs::read_dir(&mirrors).unwrap().next().unwrap().unwrap().path();
    let packs = |ending: &str| {
        let files = fs::read_dir(mirror.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().unwrap() == ending).collect::<Vec<_>>()
    };
    let damages: [(&str, &[u8]); 6] = [
        ("refs/heads/side", b""),
        ("config", b""),
        ("config", b"[core"),
        ("HEAD", b"no\n"),
        ("pack", b""),
        ("idx", b""),
    ];
    for (name, left) in damages {
        let files = if ["pack", "idx"].contains(&name) { packs(name) } else { vec![mirror.join(name)] };
        for file in &files {
            fs::remove_file(file).unwrap();
            fs::write(file, left).unwrap();
        }
        bench.gives(&bench.repository, None, &bench.three);
        bench.gives(&bench.repository, Some("side"), &bench.two);
    }
    // Nothing is thrown away because nobody answers.
    fs::write(mirror.join("refs/heads/side"), "").unwrap();
    let away = bench.repository.with_extension("away");
    fs::rename(&bench.repository, &away).unwrap();
    let before = picture(&mirror.join("objects"));
    let said = bench.tree.ends(1, &["create", bench.repository.to_str().unwrap(), "--as", "git"]).stderr;
    assert!(said.contains("git fetch"), "{said}");
    assert_eq!(picture(&mirror.join("objects")), before);
}

#[test]
fn p13_code_that_cannot_be_read_from_a_mirror_is_fetched_anew_by_the_next_attempt() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    // Nothing that gets shorter by being packed: the middle of the pack is the middle of this.
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..200_000).map(|_| byte()).collect();
    fs::write(repository.join("noise"), &noise).unwrap();
    tree.commit(&repository, "noise");
    let source = repository.to_str().unwrap();
    tree.ends(0, &["create", source, "--id", "A"]);
    tree.ends(0, &["remove", "A"]);
    let mirrors = tree.at(".releasectl/mirror");
    let mirror = fs::read_dir(&mirrors).unwrap().next().unwrap().unwrap().path();
    for entry in fs::read_dir(mirror.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().unwrap() == "pack" {
            let mut bytes = fs::read(&entry).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::remove_file(&entry).unwrap();
            fs::write(&entry, bytes).unwrap();
        }
    }
    // What is known by its hash needs nobody's answer; but nothing is thrown away that cannot be had again.
    let (hash, away) = (tree.git(&repository, &["rev-parse", "HEAD"]), repository.with_extension("away"));
    fs::rename(&repository, &away).unwrap();
    let before = picture(&mirror.join("objects"));
    tree.ends(1, &["create", source, "--as", "git", "--ref", hash.trim(), "--id", "C"]);
    assert_eq!(picture(&mirror.join("objects")), before);
    fs::rename(&away, &repository).unwrap();
    let told = tree.ends(1, &["create", source, "--id", "B"]).stderr;
    assert!(told.contains(mirror.to_str().unwrap()), "{told}");
    tree.ends(0, &["create", "--resume", "B"]);
    assert_eq!(fs::read(tree.release("B").join("noise")).unwrap(), noise);
}
