//! What comes up on neither side: the fault is none of the releases', and the way back costs none of them.

use crate::supervised::{World, script};
use std::fs;

/// A and B, which both come up unless the tree has the file `broken`.
fn world() -> World {
    let world = World::new();
    for id in ["A", "B"] {
        let runs = "test ! -e ../../broken || exit 3; exec sleep 1000\n";
        world.build(id, &script("web", "web.sh", ""), &[("web.sh", runs)]);
    }
    world.done("activate A");
    world
}

/// As on a fleet whose other hosts are told to go back too: what is at fault is neither of the releases.
#[test]
fn a_way_back_that_is_repeated_never_makes_live_what_it_left() {
    let world = world();
    fs::write(world.tree.at("broken"), "").unwrap();
    world.ends(5, "activate B");
    for again in ["rollback --to A --expect-current B", "activate A"] {
        let said = world.ends(5, again).stderr;
        assert!(said.contains("A stays live: it is what was gone back to"), "{said}");
        assert_eq!(world.tree.live().as_deref(), Some("A"));
        assert_eq!((world.tree.states()["A"].as_str(), world.tree.states()["B"].as_str()), ("ready", "bad"));
    }
    fs::remove_file(world.tree.at("broken")).unwrap();
    world.done("rollback --to A --expect-current B");
    world.is_well("A", &["web"]);
}

/// The database is away, say. Whoever tries each release in turn would lose them all to the next clean.
#[test]
fn a_rollback_in_vain_costs_no_release_while_none_comes_up() {
    let world = world();
    world.done("activate B");
    fs::write(world.tree.at("broken"), "").unwrap();
    for again in ["rollback", "rollback --to A --expect-current B", "activate B"] {
        world.ends(5, again);
        assert_eq!(world.tree.live().as_deref(), Some("B"), "{again}");
        assert_eq!(
            (world.tree.states()["A"].as_str(), world.tree.states()["B"].as_str()),
            ("ready", "ready"),
            "{again}"
        );
    }
    fs::remove_file(world.tree.at("broken")).unwrap();
    world.done("clean --keep 0");
    world.done("rollback");
    world.is_well("A", &["web"]);
    assert_eq!(world.tree.states()["B"], "bad");
}
