//! By the fabfile.

use crate::scenario::{Orchestrator, play};
use crate::site::{Site, set_up_by_hand};
use crate::world::{World, done, in_a_world, project, told};
use std::fs;
use std::process::{Command, Output};

/// Fabric, with a fleet file of the hosts.
struct Fabric;

impl Fabric {
    fn prepare(world: &World) -> Self {
        let names: Vec<_> = world.hosts.iter().map(|host| host.name.as_str()).collect();
        fs::write(world.at("fleet.toml"), format!("[production]\nhosts = {names:?}\n")).unwrap();
        Self
    }

    fn fab(&self, world: &World, words: &[&str]) -> Output {
        let mut fab = world.here("fab");
        fab.arg("--search-root").arg(project("packaging/fabric")).arg("--ssh-config").arg(world.at("ssh_config"));
        fab.args(words).env("FLEET", world.at("fleet.toml")).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
    }
}

impl Orchestrator for Fabric {
    fn deploy(&self, world: &World) -> Output {
        self.fab(world, &["production", "deploy"])
    }

    fn roll_back(&self, world: &World) -> Output {
        self.fab(world, &["production", "rollback"])
    }
}

#[test]
fn fabric_deploys_to_three_hosts_under_load_and_back() {
    in_a_world("fabric::fabric_deploys_to_three_hosts_under_load_and_back", |world| {
        let site = Site::new(world);
        set_up_by_hand(world);
        let fabric = Fabric::prepare(world);
        play(world, &site, &fabric);
        resumed(world, &site, &fabric);
        the_other_tasks(world, &fabric);
    });
}

/// What was not built on one host is built there, and all of them have it; a rollback that stopped goes on.
fn resumed(world: &World, site: &Site<'_>, fabric: &Fabric) {
    let before = world.live();
    // Newer by its name, and older.
    world.on(&world.hosts[0], "releasectl create --id zzz && sleep 1");
    site.publish("four");
    world.on(&world.hosts[1], "rm /etc/no-builds-here");
    world.on(&world.hosts[2], "touch /etc/no-builds-here");
    assert!(!fabric.deploy(world).status.success());
    assert_eq!(world.live(), before);
    world.on(&world.hosts[2], "rm /etc/no-builds-here");
    let output = fabric.fab(world, &["production", "deploy", "--resume"]);
    assert!(output.status.success(), "{}", told(&output));
    let live = world.live();
    assert!(live[0] != before[0] && live.iter().all(|id| *id == live[0]), "{live:?}");
    assert_eq!(world.on(&world.hosts[2], "cat $(releasectl path)/version"), "four");
    world.on(&world.hosts[0], "releasectl rollback");
    assert!(!fabric.roll_back(world).status.success());
    for to in [before[0].as_deref().unwrap(), "nowhere"] {
        let output = fabric.fab(world, &["production", "rollback", "--to", to]);
        assert_eq!(output.status.success(), to != "nowhere", "{}", told(&output));
        assert_eq!(world.live(), before);
    }
}

fn the_other_tasks(world: &World, fabric: &Fabric) {
    let live = world.live();
    for (words, said) in [
        (&["setup-release", "--keep-days", "2"][..], "20"),
        (&["manage", "check --fail-level ERROR"], "no issues"),
        (&["supervisorctl", "status"], "RUNNING"),
        (&["restart-services"], "web"),
        (&["clean-releases", "--keep", "1"], "web3"),
        (&["check-status"], "web3"),
        (&["set-supervisor-config"], "web3"),
    ] {
        let words: Vec<&str> = ["production"].iter().chain(words).copied().collect();
        let output = fabric.fab(world, &words);
        assert!(output.status.success() && told(&output).contains(said), "{words:?}: {}", told(&output));
    }
    assert_eq!(world.live(), live, "none of them changed what is live");
    for (words, status) in [(&["production", "manage", "no-such-command"][..], 1), (&["deploy"], 2)] {
        assert_eq!(fabric.fab(world, words).status.code(), Some(status), "{words:?}");
    }
    let output = fabric.fab(world, &["-H", "web1", "production", "deploy"]);
    assert!(output.status.code() == Some(2) && told(&output).contains("leave -H out"), "{}", told(&output));
}

/// The names that fingers know.
#[test]
fn fabric_has_the_old_tasks() {
    let mut fab = Command::new(crate::tooling::orchestrators().join("fab"));
    fab.arg("--search-root").arg(project("packaging/fabric")).env("PYTHONDONTWRITEBYTECODE", "1").arg("--list");
    let said = done(fab.env("FLEET", project("packaging/fabric/fleet.example.toml")));
    for task in [
        "production",
        "staging",
        "deploy",
        "rollback",
        "setup-release",
        "update-current",
        "unlink-current",
        "clean-releases",
        "hotfix-deploy",
        "apply-patch",
        "reverse-patch",
        "manage",
        "supervisorctl",
        "preindex-views",
        "force-update-static",
        "kill-stale-celery-workers",
        "set-supervisor-config",
        "restart-services",
        "start-pillows",
        "stop-pillows",
        "start-celery",
        "stop-celery",
        "check-status",
    ] {
        assert!(said.lines().any(|line| line.split_whitespace().next() == Some(task)), "{task}: {said}");
    }
}
