//! What holds for whatever a peer sends after its handshake: the body of a fuzz target in `fuzz/`.
//! Compiled for that only (`--cfg fuzzing`).

use super::inbound::{Event, Inbound};
use super::record::{APPLICATION_DATA, Sealer, Suite, Traffic};

/// Records of the peer, sealed or not, mixed and cut at will: what is handed on is the front of the
/// data that it sealed, in order; and an end is one.
///
/// The input: a byte that chooses version and cipher, then pieces, each a byte for its kind (its
/// upper half 0: not sealed), one for its length, and its bytes.
pub fn tls_records(data: &[u8]) {
    let Some((choice, mut left)) = data.split_first() else { return };
    let suites = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let suite = suites[usize::from(choice / 2) % 3];
    let key = vec![1; suite.key_len()].into();
    let traffic = Traffic { tls13: choice % 2 == 1, suite, key, iv: [2; 12], sequence: 0 };
    let mut sealer = Sealer::new(&traffic).expect("the key is as long as it is to be");
    let mut inbound = Inbound::new(&traffic, Vec::new()).expect("as the sealer");
    let (mut sealed, mut opened) = (Vec::new(), 0);
    while let [kind, len, rest @ ..] = left {
        let (piece, behind) = rest.split_at(usize::from(*len).min(rest.len()));
        left = behind;
        if *kind < 16 {
            inbound.push(piece);
        } else {
            let kind = kind % 16 + 16;
            inbound.push(&sealer.seal_copy(kind, piece).expect("it is short"));
            if kind == APPLICATION_DATA {
                sealed.extend_from_slice(piece);
            }
        }
        loop {
            match inbound.advance() {
                Event::Plaintext => {
                    let plain = inbound.take(usize::from(choice / 6) + 1);
                    assert!(!plain.is_empty() && sealed[opened..].starts_with(plain));
                    opened += plain.len();
                }
                Event::KeyUpdate { .. } => {
                    assert!(traffic.tls13);
                    sealer = Sealer::new(&traffic).expect("as before");
                    inbound.rekey(&traffic).expect("as before");
                }
                Event::Renegotiation => assert!(!traffic.tls13),
                Event::Starved => {
                    assert!(inbound.end().is_none());
                    break;
                }
                Event::End => {
                    assert!(inbound.end().is_some());
                    assert_eq!(inbound.advance(), Event::End);
                    return;
                }
            }
        }
    }
}
