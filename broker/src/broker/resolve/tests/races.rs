//! Names that change their meaning while they are resolved.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{EVERY, Tree, open};

/// Lets `disturb` change the tree for some time, and asserts that `name` never brings the secret,
/// while it is found and refused by turns.
fn race(tree: &Tree, name: &str, disturb: impl Fn() + Sync) {
    for support in EVERY {
        let resolver = tree.resolver(support);
        let stop = AtomicBool::new(false);
        let (mut found, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    disturb();
                }
            });
            let start = Instant::now();
            let enough = |found, refused| found > 50 && refused > 50;
            while start.elapsed() < Duration::from_millis(200)
                || !enough(found, refused) && start.elapsed() < Duration::from_secs(20)
            {
                match open(&resolver, name.as_bytes()) {
                    Ok(content) => {
                        found += 1;
                        if content != "good" {
                            stop.store(true, Ordering::Relaxed);
                        }
                        assert_eq!(content, "good", "{name} by {support:?}");
                    }
                    Err(_) => refused += 1,
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(
            found > 0 && refused > 0,
            "{support:?}: {found} found, {refused} refused"
        );
    }
}

fn exchange(tree: &Tree, one: &str, other: &str) {
    let flags = RenameFlags::RENAME_EXCHANGE;
    renameat2(
        AT_FDCWD,
        &tree.path(one),
        AT_FDCWD,
        &tree.path(other),
        flags,
    )
    .unwrap();
}

#[test]
fn a_directory_swapped_for_a_symlink_never_leads_out() {
    let tree = Tree::new();
    tree.link("trap", "../outside");
    race(&tree, "dir/file", || {
        exchange(&tree, "root/dir", "root/trap")
    });
}

#[test]
fn a_file_swapped_for_a_symlink_never_leads_out() {
    let tree = Tree::new();
    tree.link("trap", tree.path("outside/secret"));
    race(&tree, "top", || exchange(&tree, "root/top", "root/trap"));
}

#[test]
fn a_directory_moved_out_of_the_root_never_leads_out() {
    let tree = Tree::new();
    // Resolved from where the directory is moved to, it would be the file beside the root.
    tree.link("dir/sub/up", "../../top");
    race(&tree, "dir/sub/up", || {
        exchange(&tree, "root/dir/sub", "outside/dir")
    });
}
