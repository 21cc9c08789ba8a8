//! By reference or copied: the mutation oracle for every route, on loopback and through a device
//! with and without scatter-gather and checksum offload.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use pagewire_engine::Route;
use pagewire_engine::proof::{Passage, mutation_oracle, on_loopback, scratch_file_in};

use super::support::{Netns, Place, need, need_root, plain_dir, veth};

/// What the routes are for.
const AT_BEST: [(Route, Passage); 4] = [
    (Route::Sendfile, Passage::ByReference),
    (Route::Splice, Passage::ByReference),
    (Route::MmapWrite, Passage::Copied),
    (Route::ReadWrite, Passage::Copied),
];

#[test]
fn on_loopback_by_reference() {
    for dir in Place::ALL.into_iter().filter_map(Place::scratch) {
        let scratch = scratch_file_in(dir.path()).unwrap();
        for (route, expected) in AT_BEST {
            let found = on_loopback(route, &scratch).unwrap();
            assert_eq!(found, expected, "{route} in {}", dir.path().display());
        }
    }
}

/// The features of the sending device, as ethtool sets them, and whether references then survive.
const DEVICES: [(&str, bool); 4] =
    [("sg on tx on", true), ("sg off", false), ("sg on tx off", false), ("tx on sg on", true)];

#[test]
fn through_a_device_by_its_features() {
    if !need_root("network namespaces") || !need("ip") || !need("ethtool") {
        return;
    }
    let (a, b) = veth();
    for dir in Place::ALL.into_iter().filter_map(Place::scratch) {
        let scratch = scratch_file_in(dir.path()).unwrap();
        for (features, references) in DEVICES {
            a.run(&format!("ethtool -K va {features}"));
            for (route, at_best) in AT_BEST {
                let expected = if references { at_best } else { Passage::Copied };
                let found = through_device(&a, &b, route, &scratch);
                assert_eq!(found, expected, "{route}, {features}, {}", dir.path().display());
            }
        }
    }
}

/// Asks the oracle over a connection from `va` to `vb`.
fn through_device(a: &Netns, b: &Netns, route: Route, scratch: &File) -> Passage {
    let listener = b.enter(|| TcpListener::bind("10.9.0.2:0").unwrap());
    let address = listener.local_addr().unwrap();
    let sender = a.enter(|| TcpStream::connect(address).unwrap());
    let (receiver, _) = listener.accept().unwrap();
    mutation_oracle(route, scratch, &sender, &receiver).unwrap()
}

/// The oracle must not call a copy what a stale page cache would explain: it asks twice, and the
/// answer stays.
#[test]
fn the_oracle_is_steady() {
    let dir = plain_dir();
    let scratch = scratch_file_in(Path::new(dir.path())).unwrap();
    for (route, expected) in AT_BEST.into_iter().cycle().take(40) {
        assert_eq!(on_loopback(route, &scratch).unwrap(), expected, "{route}");
    }
}
