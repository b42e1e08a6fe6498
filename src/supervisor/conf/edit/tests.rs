use super::*;
use proptest::prelude::*;

const PATTERN: &str = "/w/current/services/supervisor/*.conf";

/// The shapes of real files, and of those that are made to be awkward.
const FILES: [&str; 14] = [
    "[supervisord]\n\n[include]\nfiles = /etc/supervisor/conf.d/*.conf\n",
    "[include]\nfiles = /a/*.conf ; the host's\n  ; between\n  /b/*.conf\n\n\t/c/*.conf # last\n; after\n[supervisord]\n",
    "[include]\r\nfiles = /a/*.conf\r\n[supervisord]\r\n",
    "[supervisord]\n[include]\nfiles = /a/*.conf",
    "[supervisord]\n[include]\nfiles =\n  /a/*.conf\n  /b/*.conf",
    "[include]\nfiles =\n[supervisord]\n",
    "[include]\n  FILES: /a/*.conf\n[supervisord]\n",
    "[supervisord]\nlogfile = /x",
    "[supervisord]\nlogfile = /x\n",
    "[supervisord]\r\nlogfile = /x\r\n\r\n\r\n",
    "",
    "; nothing",
    "[include] ; of the host\nfiles=/a/*.conf/b/*.conf   \n   \n\n[supervisord]",
    "[include]\nfiles = /a\nfiles = /b\nfiles_x = 1\n",
];

fn included(text: &str) -> Vec<String> {
    let ini = Ini::parse(text).unwrap();
    let files = include(&ini).unwrap();
    files.map(|f| f.value.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

#[test]
fn wiring_adds_one_line_and_unwiring_gives_back_every_byte() {
    for text in FILES {
        let wired = wire(text, PATTERN, "production").unwrap();
        assert_eq!(included(&wired), [included(text), vec![PATTERN.to_owned()]].concat(), "{text:?}");
        assert_eq!(wire(&wired, PATTERN, "production").unwrap(), wired, "{text:?}");
        assert_eq!(status(&wired, PATTERN, "production").unwrap(), Wired::Yes, "{text:?}");
        assert_eq!(unwire(&wired, "production").unwrap(), text);
        assert_eq!(unwire(text, "production").unwrap(), text);
        assert_eq!(status(text, PATTERN, "production").unwrap(), Wired::No);
    }
}

#[test]
fn environments_share_a_file_and_leave_it_in_any_order() {
    let other = "/s/current/services/supervisor/*.conf";
    for text in FILES {
        let both = wire(&wire(text, PATTERN, "production").unwrap(), other, "staging").unwrap();
        assert_eq!(included(&both).len(), included(text).len() + 2);
        for order in [["production", "staging"], ["staging", "production"]] {
            let one = unwire(&both, order[0]).unwrap();
            assert_eq!(included(&one).len(), included(text).len() + 1, "{one:?}");
            assert_eq!(unwire(&one, order[1]).unwrap(), text);
        }
    }
}

#[test]
fn a_tree_that_moved_is_wired_anew() {
    let wired = wire(FILES[1], "/old/*.conf", "production").unwrap();
    assert_eq!(status(&wired, PATTERN, "production").unwrap(), Wired::Elsewhere);
    let again = wire(&wired, PATTERN, "production").unwrap();
    assert_eq!(included(&again), [included(FILES[1]), vec![PATTERN.to_owned()]].concat());
    assert_eq!(unwire(&again, "production").unwrap(), FILES[1]);
}

#[test]
fn what_somebody_wired_by_hand_is_left_alone() {
    let text = format!("[include]\nfiles = /a/*.conf {PATTERN}\n");
    assert_eq!(status(&text, PATTERN, "production").unwrap(), Wired::ByHand);
    assert_eq!(wire(&text, PATTERN, "production").unwrap(), text);
    assert_eq!(unwire(&text, "production").unwrap(), text);
    let tagged = format!("[include]\nfiles = {PATTERN} ; releasectl production\n");
    assert_eq!(unwire(&tagged, "production").unwrap(), tagged);
}

#[test]
fn two_includes_or_none_of_files_are_refused() {
    let twice = "[include]\nfiles = /a\n[supervisord]\n[include]\nfiles = /b\n";
    let error = wire(twice, PATTERN, "production").unwrap_err().to_string();
    assert!(error.contains("two [include]") && error.contains("lines 1 and 4"), "{error}");
    assert!(status(twice, PATTERN, "production").is_err());
    assert!(wire("[include]\n", PATTERN, "production").unwrap_err().to_string().contains("no files"));
    assert!(wire("x", PATTERN, "production").unwrap_err().to_string().contains("line 1"));
    assert!(wire("", PATTERN, "a b").is_err());
}

#[test]
fn a_path_is_written_so_that_it_is_read_back() {
    let path = |text: &str| pattern(Path::new(text)).map(|p| p.replace("/current/services/supervisor/*.conf", ""));
    assert_eq!(path("/srv/my app/100%/[x]*?/").unwrap(), "/srv/my?app/100%%/[[]x][*][?]");
    assert_eq!(path("/srv/%(here)s").unwrap(), "/srv/[%%](here)s");
    assert!(path("relative").is_err());
    assert!(path("/a\nb").is_err());
}

#[test]
fn the_user_is_written_into_every_program() {
    let text =
        "[program:a]\ncommand=x\nUser = root ; no\n  more\n[group:g]\nprograms=a\n[eventlistener:e]\nevents=TICK_5";
    let set = set_user(text, "cchq").unwrap();
    let expected =
        "[program:a]\nuser = cchq\ncommand=x\n[group:g]\nprograms=a\n[eventlistener:e]\nuser = cchq\nevents=TICK_5";
    assert_eq!(set, expected);
    assert_eq!(set_user(&set, "cchq").unwrap(), set);
    assert_eq!(set_user("[program:a]", "x").unwrap(), "[program:a]\nuser = x");
    let indented = set_user("[program:a]\n    command = x\n", "app").unwrap();
    assert_eq!(indented, "[program:a]\n    user = app\n    command = x\n", "no key becomes more of the name");
    let header = set_user("[program:a]\n  [program:b]\n", "app").unwrap();
    assert_eq!(header, "[program:a]\n  user = app\n  [program:b]\nuser = app\n", "nor does a header");
}

proptest! {
    #[test]
    fn whatever_can_be_wired_can_be_unwired(parts in prop::collection::vec(
        prop::sample::select(vec![
            "[include]", "[supervisord]", "files", " = ", "=", "/a/*.conf", " ", "\t", "\n", "\n", "\r\n", "\r", ";", " ; c",
            "#", "  /b", "x: y", "[DEFAULT]", "%", "é", "\u{1f}",
        ]), 0..24)
    ) {
        let text = parts.concat();
        if let Ok(wired) = wire(&text, PATTERN, "production")
            && status(&text, PATTERN, "production") == Ok(Wired::No)
        {
            prop_assert_eq!(unwire(&wired, "production").unwrap(), text);
            prop_assert_eq!(wire(&wired, PATTERN, "production").unwrap(), wired);
        }
    }
}
