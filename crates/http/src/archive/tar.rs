//! The tar format (POSIX.1-2017, pax): the text around each file. PURE.
//!
//! What a plain header cannot say goes into a pax header before it: long names, lengths from
//! 8 GiB on, times before 1970 or after 2242. Owners are left out: they are this machine's.

use tar::{Builder, EntryType, Header};

use crate::archive::member::{Kind, Member};

const BLOCK_BYTES: u64 = 512;

/// Two empty blocks end an archive.
pub(crate) const END: [u8; 1024] = [0; 1024];

/// The most that the octal digits of a plain header hold.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// What goes before a member's bytes.
pub(crate) fn head(member: &Member) -> Vec<u8> {
    let mut header = Header::new_ustar();
    let mut pax: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut path = Vec::from(&*member.path);
    let entry_type = match &member.kind {
        Kind::Directory => {
            path.push(b'/');
            EntryType::Directory
        }
        Kind::File(_) => EntryType::Regular,
        Kind::Link(leads_to) => {
            if !put(&mut header.as_old_mut().linkname, leads_to) {
                pax.push(("linkpath", leads_to.clone().into_vec()));
            }
            EntryType::Symlink
        }
    };
    header.set_entry_type(entry_type);
    header.set_mode(member.mode);
    header.set_uid(0);
    header.set_gid(0);
    if !put(&mut header.as_old_mut().name, &path) {
        pax.push(("path", path));
    }
    let len = member.content_len();
    header.set_size(len);
    if len > OCTAL_MAX {
        pax.push(("size", len.to_string().into_bytes()));
    }
    let seconds = member.modified.seconds;
    match u64::try_from(seconds).ok().filter(|seconds| *seconds <= OCTAL_MAX) {
        Some(seconds) => header.set_mtime(seconds),
        None => {
            header.set_mtime(0);
            pax.push(("mtime", seconds.to_string().into_bytes()));
        }
    }
    header.set_cksum();
    if pax.iter().any(|(_, value)| str::from_utf8(value).is_err()) {
        // Names are bytes, as the file system has them, and not UTF-8.
        pax.insert(0, ("hdrcharset", b"BINARY".into()));
    }
    with_pax(&header, &pax)
}

/// Whether `value` fits into a field of a header, and then it is there.
fn put(field: &mut [u8; 100], value: &[u8]) -> bool {
    let fits = value.len() <= field.len();
    let len = value.len().min(field.len());
    field[..len].copy_from_slice(&value[..len]);
    fits
}

fn with_pax(header: &Header, pax: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(if pax.is_empty() { 512 } else { 2048 });
    if !pax.is_empty() {
        let mut builder = Builder::new(&mut blocks);
        let records = pax.iter().map(|(key, value)| (*key, value.as_slice()));
        let written = builder.append_pax_extensions(records);
        written.expect("writing to a Vec does not fail");
        drop(builder);
        // The builder ended its archive.
        blocks.truncate(blocks.len() - END.len());
    }
    blocks.extend_from_slice(header.as_bytes());
    blocks
}

/// Zeros after a file of `len` bytes, up to a whole block.
pub(crate) fn padding(len: u64) -> usize {
    let padding = len.next_multiple_of(BLOCK_BYTES) - len;
    usize::try_from(padding).expect("less than a block")
}
