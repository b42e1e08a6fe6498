//! What every way of driving the hosts must do alike.

use crate::host::Host;
use crate::load::{Proxy, under_load};
use crate::site::Site;
use crate::world::{World, told, until};
use std::process::Output;

/// A way of driving the hosts.
pub trait Orchestrator {
    /// Builds what the repository has on all hosts and makes it live on one after the other.
    fn deploy(&self, world: &World) -> Output;
    /// Goes back on all of them, if they agree.
    fn roll_back(&self, world: &World) -> Output;
}

#[track_caller]
fn succeeds(output: Output) {
    assert!(output.status.success(), "{}", told(&output));
}

#[track_caller]
fn fails(output: Output) -> String {
    assert!(!output.status.success(), "{}", told(&output));
    told(&output)
}

/// Deploys under load, a build that fails on one host, a rollback while one host differs and one while all agree. The hosts
/// are set up, and nothing was ever live on them.
pub fn play(world: &World, site: &Site<'_>, orchestrator: &dyn Orchestrator) {
    let proxy = Proxy::new(world);
    succeeds(orchestrator.deploy(world));
    let first = all_have(world, &proxy, "one");
    migrated_where_the_role_says(world);

    site.publish("two");
    succeeds(under_load(&proxy, || orchestrator.deploy(world)));
    let second = all_have(world, &proxy, "two");
    one_after_the_other(world, &second);

    site.publish("three");
    world.on(&world.hosts[1], "touch /etc/no-builds-here");
    let activations = activations(world);
    let said = fails(under_load(&proxy, || orchestrator.deploy(world)));
    assert!(said.contains("web2") && said.contains("may-be-built-here"), "it says where and why: {said}");
    assert_eq!(all_have(world, &proxy, "two"), second);
    assert_eq!(self::activations(world), activations, "not even for a moment");

    world.on(&world.hosts[2], "releasectl rollback");
    let before = world.live();
    let said = fails(under_load(&proxy, || orchestrator.roll_back(world)));
    assert!(said.contains("web3"), "it says who differs: {said}");
    assert_eq!(world.live(), before);
    world.on(&world.hosts[2], &format!("releasectl activate {second}"));
    succeeds(under_load(&proxy, || orchestrator.roll_back(world)));
    assert_eq!(all_have(world, &proxy, "one"), first);
    one_after_the_other(world, &first);
}

/// The release that is live on all hosts; all of them, and the proxy, answer with `version`.
#[track_caller]
fn all_have(world: &World, proxy: &Proxy, version: &str) -> String {
    let live = world.live();
    let first = live[0].clone().unwrap();
    assert!(live.iter().all(|id| *id == live[0]), "{live:?}");
    for host in &world.hosts {
        let programs = world.document(host, "status")["programs"].clone();
        assert_eq!(programs[0]["state"], "RUNNING", "{programs}");
        let processes = world.document(host, "ps")["processes"].clone();
        let served: Vec<_> = processes.as_array().unwrap().iter().filter(|one| !one["program"].is_null()).collect();
        assert!(served.iter().all(|one| one["release"] == first.as_str()) && served.len() >= 2, "{processes}");
    }
    for _ in 0..world.hosts.len() {
        until("an answer", || proxy.get().is_ok());
        assert_eq!(proxy.get().unwrap(), version);
    }
    first
}

/// Only the first host has the role for it.
fn migrated_where_the_role_says(world: &World) {
    for host in &world.hosts {
        let shown = world.document(host, "show")["steps"].clone();
        let migrated = |step: &serde_json::Value| step["name"] == "migrate" && step["status"] == "done";
        let migrated = shown.as_array().unwrap().iter().any(migrated);
        assert_eq!(migrated, host.name == "web1", "{}: {shown}", host.name);
    }
    world.on(&world.hosts[0], "releasectl manage migrate --check");
}

/// The activations of a host's history: what was made live, when it was begun and how long it took.
fn activations_of(world: &World, host: &Host) -> Vec<(String, String, f64)> {
    let history = world.document(host, "history -n 1000");
    let entries = history["entries"].as_array().unwrap().iter();
    let flips = entries.filter(|entry| entry["operation"] == "activate" || entry["operation"] == "rollback");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    flips.map(|flip| (text(&flip["to"]), text(&flip["at"]), flip["seconds"].as_f64().unwrap_or(0.0))).collect()
}

fn activations(world: &World) -> Vec<Vec<(String, String, f64)>> {
    world.hosts.iter().map(|host| activations_of(world, host)).collect()
}

/// No host was begun with before the one before it had come up.
fn one_after_the_other(world: &World, id: &str) {
    let mut ended = 0.0;
    for host in &world.hosts {
        let flips = activations_of(world, host);
        let (_, at, seconds) = flips.iter().rev().find(|(to, ..)| to == id).unwrap().clone();
        let at = at.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp();
        // Times are whole seconds.
        let at = f64::from(i32::try_from(at).unwrap());
        assert!(at + 1.0 >= ended, "{}: {flips:?}", host.name);
        ended = at + seconds;
    }
}
