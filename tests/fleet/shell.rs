//! By the README's loops, as they stand there.

use crate::scenario::{Orchestrator, play};
use crate::site::{Site, set_up_by_hand};
use crate::world::{World, in_a_world, project, told};
use std::fs;
use std::process::Output;

/// The commands of the README below the comment `first`, up to the next one that stands alone or the end of the block.
#[track_caller]
fn block(first: &str) -> String {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    let lines = readme.lines().skip_while(|line| *line != format!("    {first}")).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with("    ") && !line.starts_with("    # "));
    let block: String = lines.map(|line| line.trim_start().to_owned() + "\n").collect();
    assert!(!block.is_empty(), "the README has no block {first:?}");
    block
}

/// The loops, written into scripts.
struct Loops;

impl Loops {
    fn run(&self, world: &World, name: &str, first: &str) -> Output {
        let hosts: Vec<_> = world.hosts.iter().map(|host| host.name.as_str()).collect();
        world.script(name, &format!("hosts='{}'\n{}", hosts.join(" "), block(first)));
        world.here(world.at(name)).output().unwrap()
    }
}

impl Orchestrator for Loops {
    fn deploy(&self, world: &World) -> Output {
        self.run(world, "deploy", "# deploy")
    }

    fn roll_back(&self, world: &World) -> Output {
        self.run(world, "rollback", "# roll back")
    }
}

#[test]
fn a_shell_loop_deploys_to_three_hosts_under_load_and_back() {
    in_a_world("shell::a_shell_loop_deploys_to_three_hosts_under_load_and_back", |world| {
        let site = Site::new(world);
        set_up_by_hand(world);
        play(world, &site, &Loops);
        built_at_once(world);
    });
}

fn built_at_once(world: &World) {
    world.on(&world.hosts[1], "rm /etc/no-builds-here");
    let live = world.live();
    let hosts: Vec<_> = world.hosts.iter().map(|host| host.name.as_str()).collect();
    let script = format!("id=at-once hosts='{}'\n{}", hosts.join(" "), block("# build everywhere at once"));
    world.script("parallel", &script);
    let output = world.here(world.at("parallel")).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    for host in &world.hosts {
        assert_eq!(world.document(host, "show at-once")["release"]["state"], "ready", "{}", host.name);
    }
    assert_eq!(world.live(), live);
}
