//! P20: trees of other tools are taken over as they are: their releases, what is live, where a rollback goes, pins, and
//! what they share. Rollback and clean then do what those tools promise, without their faults.

use crate::lab::{assert_kept, gone};
use crate::predecessors::{
    Capistrano, Fate, Mina, ansistrano_deploys, deployer_deploys, deployer_rolls_back, fabric_activates, fabric_builds,
    fabric_records, fabric_rolls_back, fabric_would_go_to, names, shell, summary, taken_over,
};
use crate::sandbox::Sandbox;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

fn words(parts: &[&str]) -> String {
    parts.join(" ")
}

#[test]
fn p20_capistrano_its_log_is_the_history_and_no_modification_time() {
    let tree = Sandbox::new();
    let Some(cap) = Capistrano::new(&tree) else { return };
    let (first, second, third) = (cap.run("deploy", ""), cap.run("deploy", ""), cap.run("deploy", ""));
    let failed = cap.run("deploy", "build");
    // A write into an old release makes it the newest for `ls -xt`, and a deploy that was killed leaves its link.
    fs::write(tree.release(&first).join("tmp.log"), "x").unwrap();
    symlink(tree.release(&failed), tree.at("releases/current")).unwrap();
    let laid = taken_over(&tree);
    assert_eq!(
        (&laid["tool"], &laid["current"], &laid["previous"]),
        (&json!("capistrano"), &json!(third), &json!(second))
    );
    assert_eq!(laid["shared"], json!({"dirs": ["log", "public/system"], "files": []}));
    assert_eq!(laid["unusable"][0]["id"], json!(failed));
    let incomplete = format!("{failed}:incomplete");
    assert_eq!(summary(&tree), (words(&[&first, &second, &third, &incomplete]), third.clone(), second.clone()));
    let shown = tree.json(&["show", &third]);
    assert!(shown["release"]["revision"].as_str().is_some_and(|revision| revision.len() == 40), "{shown}");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some(second.as_str()));
    tree.done(&["activate", &third]);
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    assert_eq!(gone(&cleaned), [first.clone(), failed.clone()]);
    assert_kept(&cleaned, &second, "rollback_target");
    // The stale link did not become a release, and nothing was published through it.
    assert_eq!(tree.live().as_deref(), Some(third.as_str()));
    tree.create("new");
    tree.done(&["activate", "new"]);
    assert_eq!(tree.live().as_deref(), Some("new"));
}

#[test]
fn p20_capistrano_a_rollback_of_its_own_and_a_restart_that_failed() {
    let tree = Sandbox::new();
    let Some(cap) = Capistrano::new(&tree) else { return };
    let (first, second, third) = (cap.run("deploy", ""), cap.run("deploy", ""), cap.run("deploy", ""));
    cap.run("deploy:rollback", "");
    assert!(!tree.release(&third).exists(), "it archives and removes what it rolled back from");
    let fourth = cap.run("deploy", "restart");
    assert_eq!(tree.live().as_deref(), Some(fourth.as_str()), "it is live, and in no log");
    let laid = taken_over(&tree);
    assert_eq!((&laid["current"], &laid["previous"]), (&json!(fourth), &json!(second)));
    tree.done(&["rollback"]);
    let bad = format!("{fourth}:bad");
    assert_eq!(summary(&tree), (words(&[&first, &second, &bad]), second, first));
}

#[test]
fn p20_mina_numbers_are_numbers_and_the_only_release_is_not_deleted() {
    let tree = Sandbox::new();
    let Some(mina) = Mina::new(&tree) else { return };
    mina.run("deploy");
    let laid = taken_over(&tree);
    assert_eq!((&laid["tool"], &laid["current"], &laid["previous"]), (&json!("mina"), &json!("1"), &json!(null)));
    tree.refused(&["rollback"]);
    let said = tree.ends(3, &["verify"]).stderr;
    assert!(said.contains("release 1 has no inventory to compare with: it was there before releasectl"), "{said}");
    let logged = tree.ends(0, &["log", "1"]);
    assert!(
        logged.stdout.is_empty() && logged.stderr.contains("warning: release 1 was not built"),
        "{}",
        logged.stderr
    );
    assert!(tree.release("1").join("version").exists());
    fs::remove_dir_all(tree.at(".releasectl")).unwrap();
    (2..=11).for_each(|_| mina.run("deploy"));
    // A deploy that was killed after its build was moved into place.
    fs::create_dir(tree.release("12")).unwrap();
    fs::write(tree.release("12").join("version"), "x").unwrap();
    let laid = taken_over(&tree);
    assert_eq!((&laid["current"], &laid["previous"]), (&json!("11"), &json!("10")));
    assert_eq!(laid["shared"]["dirs"], json!(["log"]));
    assert_eq!(summary(&tree).0, "1 2 3 4 5 6 7 8 9 10 11 12:incomplete");
    tree.done(&["rollback"]);
    assert_eq!((tree.live().as_deref(), tree.release("11").exists()), (Some("10"), true), "it deletes nothing");
    assert_eq!(summary(&tree).2, "9");
    let cleaned = tree.json(&["clean", "--keep", "2"]);
    assert_eq!(names(&tree.at("releases")), ["10", "9"], "{cleaned}");
}

#[test]
fn p20_mina_after_a_rollback_of_its_own() {
    let tree = Sandbox::new();
    let Some(mina) = Mina::new(&tree) else { return };
    (1..=3).for_each(|_| mina.run("deploy"));
    mina.run("deploy:rollback");
    let laid = taken_over(&tree);
    assert_eq!((&laid["adopted"], &laid["current"], &laid["previous"]), (&json!(["1", "2"]), &json!("2"), &json!("1")));
}

#[test]
fn p20_deployer_its_log_is_the_history_and_bad_stays_bad() {
    let tree = Sandbox::new();
    (7..=9).for_each(|name| deployer_deploys(&tree, name, Fate::Live));
    deployer_deploys(&tree, 10, Fate::NoCode);
    deployer_deploys(&tree, 11, Fate::Live);
    deployer_rolls_back(&tree, 11, 9);
    deployer_deploys(&tree, 12, Fate::Live);
    deployer_deploys(&tree, 13, Fate::NoBuild);
    fs::create_dir_all(tree.release("5").join("src")).unwrap();
    let laid = taken_over(&tree);
    assert_eq!((&laid["tool"], &laid["current"], &laid["previous"]), (&json!("deployer"), &json!("12"), &json!("9")));
    assert_eq!(laid["shared"]["dirs"], json!(["storage"]));
    assert_eq!(summary(&tree).0, "5:incomplete 7 8 9 10:incomplete 11:bad 12 13:incomplete");
    assert_eq!(tree.json(&["list"])["releases"][1]["created_at"], "2026-11-27T10:00:00Z");
    // Failed builds do not crowd the good ones out.
    let cleaned = tree.json(&["clean", "--keep", "3"]);
    assert_eq!(names(&tree.at("releases")), ["12", "8", "9"], "{cleaned}");
    tree.done(&["rollback"]);
    assert_eq!((tree.live().as_deref(), summary(&tree).2), (Some("9"), "8".to_owned()));
    tree.refused(&["activate", "5"]);
}

#[test]
fn p20_ansistrano_and_deploy_helper_names_are_the_order() {
    let tree = Sandbox::new();
    let name = |day: u8| format!("202611{day:02}100000Z");
    (1..=3).for_each(|day| ansistrano_deploys(&tree, &name(day), true));
    ansistrano_deploys(&tree, &name(4), false);
    fs::write(tree.release(&name(1)).join("touched"), "now").unwrap();
    let answer = tree.ends(0, &["init"]);
    assert!(answer.stderr.contains("keeps no record of what was live"), "{}", answer.stderr);
    fs::remove_dir_all(tree.at(".releasectl")).unwrap();
    let laid = taken_over(&tree);
    assert_eq!((&laid["tool"], &laid["previous"]), (&json!("ansistrano"), &json!(name(2))));
    assert_eq!(laid["shared"]["dirs"], json!(["media"]));
    let incomplete = format!("{}:incomplete", name(4));
    assert_eq!(summary(&tree).0, words(&[&name(1), &name(2), &name(3), &incomplete]));
    assert_eq!(tree.json(&["list"])["releases"][0]["created_at"], "2026-11-01T10:00:00Z");

    // deploy_helper's names have no Z, its link is absolute, and what is not finished is marked.
    let tree = Sandbox::new();
    shell(&tree, "mkdir -p releases shared; cd releases; mkdir 20261101100000 20261102100000 20261103100000");
    shell(&tree, "touch releases/20261102100000/DEPLOY_UNFINISHED; ln -s \"$1/releases/20261103100000\" current");
    let laid = taken_over(&tree);
    assert_eq!((&laid["tool"], &laid["previous"]), (&json!("ansistrano"), &json!("20261101100000")));
    assert_eq!(summary(&tree).0, "20261101100000 20261102100000:incomplete 20261103100000");
}

const DAYS: [&str; 4] = ["2026-11-20_09.15", "2026-11-21_10.00", "2026-11-22_23.40", "2026-11-23_08.30"];

/// A Fabric tree in which the first three were live in turn and the last was not built to its end.
fn fabric() -> Sandbox {
    let tree = Sandbox::new();
    DAYS.iter().for_each(|id| fabric_builds(&tree, id));
    DAYS[..3].iter().for_each(|id| fabric_activates(&tree, id));
    tree
}

fn ledger(tree: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(tree.at("RELEASES.txt")).unwrap();
    let prefix = format!("{}/releases/", tree.root().display());
    text.lines().map(|line| line.strip_prefix(&prefix).unwrap_or(line).to_owned()).collect()
}

#[test]
fn p20_fabric_releases_rollback_target_and_pins_are_what_its_tasks_say() {
    let tree = fabric();
    shell(&tree, &format!("touch releases/{}/KEEP_UNTIL__2099-01-01_00.00", DAYS[3]));
    // Two pins at once, which its own clean takes for none.
    shell(&tree, &format!("cd releases/{}; touch KEEP_UNTIL__2020-01-01_00.00 KEEP_UNTIL__2099-01-01_00.00", DAYS[0]));
    let would = fabric_would_go_to(&tree);
    let laid = taken_over(&tree);
    assert_eq!((&laid["tool"], &laid["previous"]), (&json!("fabric"), &json!(would)));
    let incomplete = format!("{}:incomplete", DAYS[3]);
    let releases = words(&[DAYS[0], DAYS[1], DAYS[2], &incomplete]);
    assert_eq!(summary(&tree), (releases, DAYS[2].to_owned(), DAYS[1].to_owned()));
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    assert!(gone(&cleaned).is_empty(), "{cleaned}");
    assert_kept(&cleaned, DAYS[0], "pinned");
    assert_kept(&cleaned, DAYS[3], "pinned");
    tree.refused(&["activate", DAYS[3]]);
    let error = tree.refused(&["create", "--resume", DAYS[3]]);
    assert!(error.contains("begun by another tool"), "{error}");
}

#[test]
fn p20_fabric_a_failed_restart_does_not_hide_the_last_good_release() {
    let tree = fabric();
    fabric_builds(&tree, "2026-11-24_10.00");
    shell(&tree, "ln -nfs \"$1/releases/2026-11-24_10.00\" current");
    assert_eq!(fabric_would_go_to(&tree), DAYS[1], "its own rollback would pass by the last good one");
    assert_eq!(taken_over(&tree)["previous"], DAYS[2]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some(DAYS[2]));
    assert_eq!(ledger(&tree), DAYS[..3]);
    // With one release it goes nowhere, not to itself.
    let tree = Sandbox::new();
    fabric_builds(&tree, DAYS[0]);
    fabric_activates(&tree, DAYS[0]);
    assert_eq!(fabric_would_go_to(&tree), DAYS[0]);
    taken_over(&tree);
    tree.refused(&["rollback"]);
}

#[test]
fn p20_commcare_cloud_marks_what_is_complete() {
    let tree = Sandbox::new();
    DAYS.iter().for_each(|id| fabric_builds(&tree, id));
    shell(&tree, &format!("touch releases/{}/.build-complete releases/{}/.build-complete", DAYS[1], DAYS[2]));
    shell(&tree, &format!("mkdir -p releases/git_mirrors/hq.git; ln -s \"$1/releases/{}\" current", DAYS[2]));
    let laid = taken_over(&tree);
    assert_eq!((&laid["tool"], &laid["previous"]), (&json!("fabric"), &json!(DAYS[1])));
    assert_eq!(tree.json(&["list"])["foreign"], json!(["git_mirrors"]));
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    assert_eq!(gone(&cleaned), [DAYS[0], DAYS[3]]);
    assert_kept(&cleaned, "git_mirrors", "unrecognised");
}

#[test]
fn p20_releases_txt_is_kept_true_and_the_older_tooling_goes_on_working() {
    let tree = fabric();
    tree.done(&["init"]);
    tree.create("2026-11-25_10.00");
    tree.done(&["activate"]);
    assert_eq!(ledger(&tree), [DAYS[0], DAYS[1], DAYS[2], "2026-11-25_10.00"]);
    assert_eq!(fabric_would_go_to(&tree), summary(&tree).2);
    tree.done(&["rollback"]);
    assert_eq!(ledger(&tree), DAYS[..3], "what was rolled back from is no release that was live");
    assert_eq!(fabric_would_go_to(&tree), summary(&tree).2);
    tree.done(&["activate", DAYS[0]]);
    assert_eq!(ledger(&tree), [DAYS[1], DAYS[2], DAYS[0]]);
    tree.done(&["activate", DAYS[2]]);
    tree.json(&["clean", "--keep", "0"]);
    assert_eq!(ledger(&tree), [DAYS[0], DAYS[2]]);

    // The older tooling deploys twice, unseen by us: both are ours to look after, and the way back is right.
    for id in ["2026-11-26_10.00", "2026-11-27_10.00"] {
        fabric_builds(&tree, id);
        fabric_activates(&tree, id);
    }
    // A look foretells it, and records nothing.
    let before = tree.picture();
    for words in [&["status"][..], &["list"]] {
        assert_eq!(tree.json(words)["previous"], "2026-11-26_10.00", "{words:?}");
    }
    for words in [&["rollback", "--dry-run"][..], &["rollback", "--dry-run", "--to", "2026-11-26_10.00"]] {
        assert_eq!(tree.json(words)["to"], "2026-11-26_10.00", "{words:?}");
    }
    assert!(tree.run(&["doctor"]).stdout.contains("a rollback would go to 2026-11-26_10.00"));
    let foretold = tree.json(&["clean", "--keep", "0", "--dry-run"]);
    assert_eq!(tree.picture(), before);
    let answer = tree.ends(0, &["pin", "current", "--days", "1"]);
    assert!(answer.stderr.contains("changed by another hand"), "{}", answer.stderr);
    assert_kept(&foretold, "2026-11-26_10.00", "rollback_target");
    assert_kept(&foretold, "2026-11-27_10.00", "current");
    assert_eq!(summary(&tree).1, "2026-11-27_10.00");
    assert_eq!(summary(&tree).2, "2026-11-26_10.00");
    assert_eq!(ledger(&tree), [DAYS[0], DAYS[2], "2026-11-26_10.00", "2026-11-27_10.00"]);

    // It rolls back: what it left is bad, and not what we would go to.
    assert!(!tree.done(&["doctor"]).contains("BAD"));
    fabric_rolls_back(&tree);
    tree.ends(0, &["unpin", "2026-11-27_10.00"]);
    assert_eq!(tree.states()["2026-11-27_10.00"], "bad");
    assert_eq!((summary(&tree).1.as_str(), summary(&tree).2.as_str()), ("2026-11-26_10.00", DAYS[2]));
    assert_eq!(tree.history().last().unwrap(), "unpin - 2026-11-27_10.00 done");
    assert_eq!(ledger(&tree), [DAYS[0], DAYS[2], "2026-11-26_10.00"]);
    tree.done(&["doctor"]);

    // A deploy of the older tooling that we saw before its last line was written.
    fabric_builds(&tree, "2026-11-28_10.00");
    shell(&tree, "ln -nfs \"$1/releases/2026-11-28_10.00\" current");
    tree.done(&["pin", "current", "--days", "1"]);
    fabric_records(&tree, "2026-11-28_10.00");
    assert_eq!(fabric_would_go_to(&tree), "2026-11-26_10.00");
    assert_eq!(summary(&tree).2, "2026-11-26_10.00");
    let mode = |path: &str| std::os::unix::fs::MetadataExt::mode(&fs::metadata(tree.at(path)).unwrap()) & 0o7777;
    assert_eq!(mode("RELEASES.txt"), 0o644);
}

#[test]
fn p20_a_deploy_of_the_older_tooling_that_failed_does_not_hide_the_one_before_it_that_did_not() {
    let tree = fabric();
    tree.done(&["init"]);
    for id in ["2026-11-26_10.00", "2026-11-27_10.00"] {
        fabric_builds(&tree, id);
    }
    fabric_activates(&tree, "2026-11-26_10.00");
    let told = tree.ends(6, &["doctor"]).stdout;
    assert!(told.contains("nothing is known of it") && told.contains("`releasectl init` takes over"), "{told}");
    shell(&tree, "ln -nfs \"$1/releases/2026-11-27_10.00\" current");
    assert!(tree.refused(&["verify"]).contains("nothing is known of it"));
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("2026-11-26_10.00"), "its restart had come to its end");
    assert_eq!(tree.states()["2026-11-27_10.00"], "bad");
    assert_eq!(ledger(&tree).last().unwrap(), "2026-11-26_10.00");
    tree.done(&["doctor"]);
}

#[test]
fn p20_whatever_kills_a_change_the_next_command_makes_releases_txt_true() {
    let mut kills = 0;
    for when in 1.. {
        let tree = fabric();
        tree.done(&["init"]);
        let faulty = tree
            .faulty(&format!("renameat:signal=SIGKILL:when={when}"), &["activate", DAYS[0]])
            .output()
            .unwrap()
            .status;
        if faulty.success() {
            break;
        }
        kills += 1;
        tree.done(&["pin", DAYS[1], "--days", "1"]);
        assert_eq!(fabric_would_go_to(&tree), summary(&tree).2, "{when}");
        let live = tree.live().unwrap();
        assert_eq!(ledger(&tree).last(), Some(&live), "{when}");
        let debris = fs::read_dir(tree.root())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".RELEASES"));
        assert_eq!(debris.count(), 0, "{when}");
    }
    assert!(kills > 1, "the list is renamed into place after the link");
}

#[test]
fn p20_a_takeover_that_was_killed_anywhere_is_finished_by_the_next() {
    let tree = Sandbox::new();
    DAYS.iter().for_each(|id| fabric_builds(&tree, id));
    // Only what is taken over first says whose tree it is.
    shell(&tree, &format!("touch releases/{}/.build-complete; ln -s \"$1/releases/{}\" current", DAYS[0], DAYS[2]));
    let wanted = format!("{} {}:incomplete {} {}:incomplete", DAYS[0], DAYS[1], DAYS[2], DAYS[3]);
    let mut kills = 0;
    for when in 1.. {
        if tree.faulty(&format!("renameat:signal=SIGKILL:when={when}"), &["init"]).output().unwrap().status.success() {
            break;
        }
        kills += 1;
        tree.done(&["init"]);
        assert_eq!(summary(&tree), (wanted.clone(), DAYS[2].to_owned(), DAYS[0].to_owned()), "{when}");
        tree.done(&["doctor"]);
        fs::remove_dir_all(tree.at(".releasectl")).unwrap();
    }
    assert!(kills >= DAYS.len(), "a manifest is renamed into place for each");
}

#[test]
fn p20_a_releases_txt_that_is_a_link_is_never_written_through() {
    let tree = fabric();
    tree.done(&["init"]);
    fs::rename(tree.at("RELEASES.txt"), tree.beside("elsewhere")).unwrap();
    let before = fs::read_to_string(tree.beside("elsewhere")).unwrap();
    symlink(tree.beside("elsewhere"), tree.at("RELEASES.txt")).unwrap();
    let answer = tree.ends(0, &["activate", DAYS[0]]);
    assert!(answer.stderr.contains("RELEASES.txt could not be kept true"), "{}", answer.stderr);
    assert_eq!(fs::read_to_string(tree.beside("elsewhere")).unwrap(), before);
    assert!(tree.at("RELEASES.txt").is_symlink());
}
