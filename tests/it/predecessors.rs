//! Trees as other tools leave them: made by the tools themselves where Debian has them (Capistrano, Mina), otherwise by
//! the commands that their recipes run on a host, one by one.

use crate::lab::left_out;
use crate::sandbox::{Sandbox, picture};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs a script in the tree's root, which is `$1`.
#[track_caller]
pub fn shell(tree: &Sandbox, script: &str) {
    fs::create_dir_all(tree.root()).unwrap();
    let mut command = tree.clean("sh");
    let output = command.current_dir(tree.root()).args(["-euc", script, "sh"]).arg(tree.root()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes the tree over, and shows that nothing but our own directory is new: without it all is as it was.
#[track_caller]
pub fn taken_over(tree: &Sandbox) -> serde_json::Value {
    let before = picture(&tree.root());
    tree.done(&["init"]);
    fs::remove_dir_all(tree.at(".releasectl")).unwrap();
    assert_eq!(picture(&tree.root()), before, "undone by removing .releasectl");
    let document = tree.json(&["init"]);
    let mut after = picture(&tree.root());
    after.retain(|path, _| !path.starts_with(".releasectl"));
    assert_eq!(after, before);
    tree.done(&["doctor"]);
    document
}

/// The releases in their order with their states, those ready by their name alone; what is live; what was before.
pub fn summary(tree: &Sandbox) -> (String, String, String) {
    let listing = tree.json(&["list"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let releases = listing["releases"].as_array().unwrap().iter().map(|release| match release["state"].as_str() {
        Some("ready") => text(&release["id"]),
        state => format!("{}:{}", text(&release["id"]), state.unwrap()),
    });
    (releases.collect::<Vec<_>>().join(" "), text(&listing["current"]), text(&listing["previous"]))
}

/// Waits for the next second: names that tell the second must differ.
fn next_second() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(u64::from(1010 - now.subsec_millis())));
}

/// Whether a program is there; says so if it is not.
fn installed(tree: &Sandbox, program: &str) -> bool {
    let found = tree.clean("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status().unwrap().success();
    if !found {
        left_out(&format!("a tree made by {program}"), "it is not installed");
    }
    found
}

/// Capistrano 3, which deploys to the same host.
pub struct Capistrano<'a> {
    tree: &'a Sandbox,
    place: PathBuf,
}

impl<'a> Capistrano<'a> {
    pub fn new(tree: &'a Sandbox) -> Option<Self> {
        if !installed(tree, "cap") {
            return None;
        }
        let (place, source) = (tree.beside("cap"), tree.repository("source"));
        fs::create_dir_all(place.join("config/deploy")).unwrap();
        let scm = "require 'capistrano/setup'\nrequire 'capistrano/deploy'\nrequire 'capistrano/scm/git'\n\
                   install_plugin Capistrano::SCM::Git\n";
        let deploy = format!(
            "set :application, 'app'\nset :repo_url, '{}'\nset :branch, 'master'\nset :deploy_to, '{}'\n\
             set :tmp_dir, '{}'\nset :linked_dirs, %w[log public/system]\nset :local_user, 'ci'\nset :keep_releases, 9\n\
             before 'deploy:publishing', :build do\n  raise 'it does not build' if ENV['FAIL'] == 'build'\nend\n\
             after 'deploy:publishing', :serve do\n  raise 'it does not start' if ENV['FAIL'] == 'restart'\nend\n",
            source.display(),
            tree.root().display(),
            tree.beside("tmp").display()
        );
        fs::write(place.join("Capfile"), scm).unwrap();
        fs::write(place.join("config/deploy.rb"), deploy).unwrap();
        fs::write(place.join("config/deploy/production.rb"), "server :local, roles: %w[app]\n").unwrap();
        Some(Self { tree, place })
    }

    /// Runs a task and returns the newest release.
    #[track_caller]
    pub fn run(&self, task: &str, fails: &str) -> String {
        next_second();
        let mut cap = self.tree.clean("cap");
        let output = cap.current_dir(&self.place).args(["production", task]).env("FAIL", fails).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), fails.is_empty(), "{said}");
        names(&self.tree.at("releases")).pop().unwrap()
    }
}

/// Mina, whose scripts are run here and not over ssh.
pub struct Mina<'a> {
    tree: &'a Sandbox,
    place: PathBuf,
}

impl<'a> Mina<'a> {
    pub fn new(tree: &'a Sandbox) -> Option<Self> {
        if !installed(tree, "mina") {
            return None;
        }
        let (place, source) = (tree.beside("mina"), tree.repository("source"));
        fs::create_dir_all(place.join("config")).unwrap();
        // Debian's package has lost the template it looks for; its documentation has it.
        let deploy = format!(
            "require 'mina'\nrequire 'mina/git'\n\
             def Mina.root_path(*a) = File.join('/usr/share/doc/mina/examples', File.basename(a.last))\n\
             set :domain, 'localhost'\nset :deploy_to, '{}'\nset :repository, '{}'\nset :branch, 'master'\n\
             set :shared_paths, ['log']\nset :term_mode, nil\n\
             task :setup do\n  queue! %[mkdir -p \"#{{deploy_to}}/#{{shared_path}}/log\"]\nend\n\
             task :deploy do\n  deploy do\n    invoke :'git:clone'\n    invoke :'deploy:link_shared_paths'\n\
             to :launch do\n    end\n  end\nend\n",
            tree.root().display(),
            source.display()
        );
        fs::write(place.join("config/deploy.rb"), deploy).unwrap();
        let mina = Self { tree, place };
        mina.run("setup");
        Some(mina)
    }

    #[track_caller]
    pub fn run(&self, task: &str) {
        let script = self.tree.clean("mina").current_dir(&self.place).args([task, "-S"]).output().unwrap();
        let text = String::from_utf8(script.stdout).unwrap();
        assert!(script.status.success(), "{text}");
        // What it says of itself follows the script.
        let text: String = text.lines().filter(|line| !line.contains("Elapsed time")).flat_map(|l| [l, "\n"]).collect();
        let done = self.tree.clean("bash").args(["-c", &text]).output().unwrap();
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// How a deploy of Deployer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes live.
    Live,
    /// It fails before its code is there.
    NoCode,
    /// It fails after that.
    NoBuild,
}

/// One deploy as Deployer 7 does it: deploy:setup, :release, :update_code, :shared, :symlink.
pub fn deployer_deploys(tree: &Sandbox, name: u32, fate: Fate) {
    let begin = format!(
        "mkdir -p .dep releases shared/storage\n[ -h release ] && rm release\necho {name} > .dep/latest_release\n\
         echo '{{\"created_at\":\"2026-11-2{}T10:00:00+0000\",\"release_name\":\"{name}\",\"user\":\"ci\",\
         \"target\":\"HEAD\"}}' >> .dep/releases_log\nmkdir -p releases/{name}\n\
         ln -s releases/{name} release",
        name % 10
    );
    let code = format!(
        "echo {name} > releases/{name}/version; echo 1234567890abcdef1234567890abcdef12345678 > releases/{name}/REVISION\n\
         ln -nfs \"$1/shared/storage\" releases/{name}/storage"
    );
    shell(tree, &begin);
    if fate != Fate::NoCode {
        shell(tree, &code);
    }
    if fate == Fate::Live {
        shell(tree, "mv -T release current");
    }
}

/// A rollback as Deployer 7 does it from `from` to `to`.
pub fn deployer_rolls_back(tree: &Sandbox, from: u32, to: u32) {
    shell(tree, &format!("ln -nfs releases/{to} current; echo 2026,ci > releases/{from}/BAD_RELEASE"));
}

/// One deploy as Ansistrano does it: a directory, code, shared links, the relative link put in place.
pub fn ansistrano_deploys(tree: &Sandbox, name: &str, live: bool) {
    let make = format!(
        "mkdir -p releases shared/media repo; mkdir releases/{name}; echo {name} > releases/{name}/version\n\
         ln -s ../../shared/media releases/{name}/media; echo 1234567 > releases/{name}/REVISION"
    );
    shell(tree, &make);
    if live {
        shell(tree, &format!("ln -s ./releases/{name} .ansible_tmp; mv -T .ansible_tmp current"));
    }
}

/// A release as Fabric's tasks build it.
pub fn fabric_builds(tree: &Sandbox, id: &str) {
    shell(tree, &format!("mkdir -p releases/{id}/python_env/bin log; echo {id} > releases/{id}/version"));
}

/// What `deploy` does after the build: update_current, services_restart, record_successful_release.
pub fn fabric_activates(tree: &Sandbox, id: &str) {
    shell(tree, &format!("ln -nfs \"$1/releases/{id}\" current"));
    fabric_records(tree, id);
}

/// The last of these alone: the line is appended unless it is there.
pub fn fabric_records(tree: &Sandbox, id: &str) {
    shell(
        tree,
        &format!("grep -qx \"$1/releases/{id}\" RELEASES.txt 2>/dev/null || echo \"$1/releases/{id}\" >> RELEASES.txt"),
    );
}

/// Fabric's own choice of where a rollback goes.
pub fn fabric_would_go_to(tree: &Sandbox) -> String {
    let output =
        tree.clean("sh").args(["-c", "tail -2 \"$1\" | head -n 1", "sh"]).arg(tree.at("RELEASES.txt")).output();
    let line = String::from_utf8(output.unwrap().stdout).unwrap();
    Path::new(line.trim()).file_name().unwrap().to_str().unwrap().to_owned()
}

/// Fabric's rollback: get_previous_release, update_current, mark_last_release_unsuccessful.
pub fn fabric_rolls_back(tree: &Sandbox) {
    shell(tree, "ln -nfs \"$(tail -2 RELEASES.txt | head -n 1)\" current; sed -i '$d' RELEASES.txt");
}

/// The names in a directory that are names of directories, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
