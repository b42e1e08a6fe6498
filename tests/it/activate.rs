//! `activate`, `rollback`, `deactivate`.

use crate::sandbox::Sandbox;

#[test]
fn p04_each_rollback_goes_one_further_back() {
    let tree = Sandbox::with_releases(&["A", "B", "C"]);
    tree.done(&["activate", "A"]);
    tree.done(&["activate", "B"]);
    tree.done(&["activate", "C"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
    let before = tree.picture();
    tree.refused(&["rollback"]);
    assert_eq!(tree.picture(), before);
    tree.done(&["activate", "C"]);
    assert_eq!(tree.live().as_deref(), Some("C"));
}
