//! By the Ansible collection.

use crate::scenario::{Orchestrator, play};
use crate::site::{Site, configuration};
use crate::tooling;
use crate::world::{World, done, in_a_world, project, told, until};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

const CONFIG: &str = "[defaults]\ninventory = hosts.yml\ncollections_path = collections\ninterpreter_python = /usr/bin/python3\n\
     [ssh_connection]\npipelining = True\n[diff]\nalways = True\n";

/// Ansible, with the collection as a user installs it.
struct Ansible;

impl Ansible {
    fn prepare(world: &World) -> Self {
        fs::write(world.at("ansible.cfg"), CONFIG).unwrap();
        let mut hosts = String::from("releasectl:\n  hosts:\n");
        for host in &world.hosts {
            let roles = if host.name == "web1" { "[web, deploy]" } else { "[web]" };
            hosts += &format!("    {}: {{site_roles: {roles}}}\n", host.name);
        }
        let text = configuration("{{ site_roles | to_json }}").replace('\n', "\n      ");
        hosts += &format!(
            "  vars:\n    releasectl_env: production\n    releasectl_wire: true\n    {}\n    \
                           releasectl_root: /srv/www/production\n    releasectl_user: site\n",
            what_to_install()
        );
        hosts += &format!("    releasectl_config: |\n      {text}\n");
        fs::write(world.at("hosts.yml"), hosts).unwrap();
        let mut install = world.here("ansible-galaxy");
        done(
            install.args(["collection", "install", "--offline", "-p", "collections"]).arg(project("packaging/ansible")),
        );
        Self
    }

    fn playbook(&self, world: &World, name: &str, more: &[&str]) -> Output {
        world.here("ansible-playbook").arg(format!("releasectl.fleet.{name}")).args(more).output().unwrap()
    }

    /// How many tasks changed something on each host.
    #[track_caller]
    fn changes(&self, world: &World, name: &str, more: &[&str]) -> Vec<usize> {
        let output = self.playbook(world, name, more);
        let told = told(&output);
        assert!(output.status.success(), "{told}");
        let recap = told.split("PLAY RECAP").nth(1).unwrap();
        let changed = recap.lines().filter_map(|line| line.split("changed=").nth(1)?.split(' ').next()?.parse().ok());
        changed.collect()
    }
}

impl Orchestrator for Ansible {
    fn deploy(&self, world: &World) -> Output {
        self.playbook(world, "deploy", &[])
    }

    fn roll_back(&self, world: &World) -> Output {
        self.playbook(world, "rollback", &[])
    }
}

/// What is installed on the hosts, as the role's variable.
fn what_to_install() -> String {
    format!("releasectl_package: {}", tooling::package().display())
}

#[test]
fn ansible_deploys_to_three_hosts_under_load_and_back() {
    in_a_world("ansible::ansible_deploys_to_three_hosts_under_load_and_back", |world| {
        let site = Site::new(world);
        let ansible = Ansible::prepare(world);
        says_beforehand(world, &ansible, "deploy", &["-e", "releasectl_id=first"]);
        assert!(!world.ssh(&world.hosts[0], "test -e /srv/www -o -e /usr/bin/releasectl").status.success());
        play(world, &site, &ansible);
        does_nothing_twice(world, &ansible);
        goes_on_with_a_rollback_that_stopped(world, &ansible);
        goes_on_with_a_deploy_that_failed_when_it_was_live(world, &ansible);
        does_not_take_for_built_what_is_being_built(world, &ansible);
    });
}

/// In check mode it says what would change, differences and all, and changes nothing.
#[track_caller]
fn says_beforehand(world: &World, ansible: &Ansible, name: &str, more: &[&str]) -> Vec<usize> {
    let before = pictures(world);
    let words: Vec<&str> = ["--check"].iter().chain(more).copied().collect();
    let predicted = ansible.changes(world, name, &words);
    let changed: Vec<String> = pictures(world).difference(&before).cloned().collect();
    assert!(changed.is_empty(), "{name}: {changed:?}");
    assert!(predicted.iter().all(|changes| *changes > 0), "{name}: {predicted:?}");
    predicted
}

/// Everything that it could have changed on the hosts: names, modes, owners, sizes, times.
fn pictures(world: &World) -> BTreeSet<String> {
    let look = "find /srv /etc/releasectl /etc/supervisor /usr/local /var/cache -maxdepth 5 \
                -printf \"$(hostname) %p %M %u %s %T@ %l\\n\" 2>/dev/null; true";
    let lines = |host| world.on(host, look).lines().map(str::to_owned).collect::<Vec<_>>();
    world.hosts.iter().flat_map(lines).collect()
}

/// What is done already is not done again, and what is predicted is what is done.
fn does_nothing_twice(world: &World, ansible: &Ansible) {
    let live = world.live()[0].clone().unwrap();
    let again = format!("releasectl_id={live}");
    assert_eq!(ansible.changes(world, "deploy", &["-e", &again]), [0, 0, 0]);
    world.on(&world.hosts[1], "rm /etc/no-builds-here");
    // Another environment, of which there is not even a file yet.
    let another = ["-e", "releasectl_env=staging", "-e", "releasectl_root=/srv/www/staging"];
    says_beforehand(world, ansible, "setup", &another);
    for (name, more, then) in [
        ("deploy", &["-e", "releasectl_id=last"][..], "last"),
        ("rollback", &[], &live),
        ("clean", &["-e", "releasectl_keep=1"], &live),
    ] {
        let predicted = says_beforehand(world, ansible, name, more);
        assert_eq!(ansible.changes(world, name, more), predicted, "{name}");
        assert!(world.live().iter().all(|id| id.as_deref() == Some(then)), "{name}: {:?}", world.live());
    }
}

/// One host has gone back, the others have not: the release that it was is named, and they follow.
fn goes_on_with_a_rollback_that_stopped(world: &World, ansible: &Ansible) {
    let live = world.live()[0].clone().unwrap();
    ansible.changes(world, "deploy", &["-e", "releasectl_id=later"]);
    world.on(&world.hosts[0], "releasectl rollback");
    let output = ansible.playbook(world, "rollback", &[]);
    assert!(!output.status.success() && told(&output).contains("-e releasectl_to=ID"), "{}", told(&output));
    assert_eq!(world.live()[1].as_deref(), Some("later"));
    assert_eq!(ansible.changes(world, "rollback", &["-e", &format!("releasectl_to={live}")]), [0, 1, 1]);
    assert!(world.live().iter().all(|id| id.as_ref() == Some(&live)), "{:?}", world.live());
}

/// The release is live on one host and its last step is not done there: that one is not passed over as done.
fn goes_on_with_a_deploy_that_failed_when_it_was_live(world: &World, ansible: &Ansible) {
    let (host, again) = (&world.hosts[0], ["-e", "releasectl_id=unended"]);
    world.on(host, "touch /etc/no-endings-here");
    let output = ansible.playbook(world, "deploy", &again);
    assert!(!output.status.success() && told(&output).contains("step may-end-here"), "{}", told(&output));
    assert_eq!(world.live()[0].as_deref(), Some("unended"));
    assert_ne!(world.live()[1].as_deref(), Some("unended"));
    world.on(host, "rm /etc/no-endings-here");
    assert_eq!(ansible.changes(world, "deploy", &again), [1, 1, 1]);
    for host in &world.hosts {
        let steps = world.document(host, "show")["steps"].to_string();
        assert!(steps.contains("may-end-here") && world.document(host, "path")["release"] == "unended", "{steps}");
    }
    assert_eq!(ansible.changes(world, "deploy", &again), [0, 0, 0]);
}

/// A release of that name is being built on one host: that is busy, and nothing goes live anywhere.
fn does_not_take_for_built_what_is_being_built(world: &World, ansible: &Ansible) {
    let (host, live) = (&world.hosts[1], world.live());
    let code = "(sleep 600 & echo $! >/run/held; wait) </dev/null 2>/dev/null";
    world.on(host, &format!("{code} | releasectl create - --id held >/run/said 2>&1 &"));
    until("it is being built", || world.ssh(host, "releasectl show held").status.success());
    let output = ansible.playbook(world, "deploy", &["-e", "releasectl_id=held"]);
    world.on(host, "kill $(cat /run/held)");
    assert!(!output.status.success() && told(&output).contains("create: "), "{}", told(&output));
    assert_eq!(world.live(), live);
}

#[test]
fn the_collection_passes_the_strictest_lints() {
    let place = tempfile::tempdir().unwrap();
    let collection = place.path().join("ansible_collections/releasectl/fleet");
    fs::create_dir_all(collection.parent().unwrap()).unwrap();
    done(Command::new("cp").arg("-r").arg(project("packaging/ansible")).arg(&collection));
    let bin = tooling::orchestrators();
    let mut lint = Command::new(bin.join("ansible-lint"));
    lint.args(["--offline", "--strict", "--profile", "production", "--nocolor"]).current_dir(&collection);
    lint.env_clear().env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", place.path());
    lint.env("ANSIBLE_COLLECTIONS_PATH", place.path()).env("LANG", "C.UTF-8");
    let said = done(&mut lint);
    assert!(said.contains("Passed: 0 failure(s), 0 warning(s)"), "{said}");
}
