//! Where what lies in an archive: its length before a byte of it is made, and the piece at any
//! position. PURE.

use crate::archive::member::{Kind, Member};
use crate::archive::{tar, zip};

/// The format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Tar,
    Zip,
}

/// An archive of these members, laid out.
#[derive(Debug)]
pub(crate) struct Layout {
    format: Format,
    members: Vec<Member>,
    /// Where each member starts.
    starts: Vec<u64>,
    /// Where each record of the central directory starts.
    records: Vec<u64>,
    /// Where the members end.
    members_end: u64,
    /// Where the records end.
    records_end: u64,
    end: Vec<u8>,
}

/// What lies at a position, from there on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) what: What,
    /// How much of its front lies before the position.
    pub(crate) skip: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    Text(Vec<u8>),
    /// The bytes of the file that is this member.
    Content(usize),
    /// What follows this member's bytes; its checksum is needed.
    Descriptor(usize),
    /// This member's record in the central directory; its checksum is needed.
    Record(usize),
}

impl Layout {
    pub(crate) fn new(format: Format, members: Vec<Member>) -> Self {
        let mut starts = Vec::with_capacity(members.len());
        let mut position = 0;
        for member in &members {
            starts.push(position);
            position += head(format, member).len() as u64;
            position += member.content_len() + tail_len(format, member);
        }
        let members_end = position;
        let mut records = Vec::new();
        if format == Format::Zip {
            for (member, start) in members.iter().zip(&starts) {
                records.push(position);
                position += zip::record(member, *start, 0).len() as u64;
            }
        }
        let end = match format {
            Format::Tar => tar::END.into(),
            Format::Zip => zip::end(members.len() as u64, members_end, position - members_end),
        };
        Self { format, members, starts, records, members_end, records_end: position, end }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> u64 {
        self.records_end + self.end.len() as u64
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// What it was made of; nothing can be asked of it any more.
    pub(crate) fn take_members(&mut self) -> Vec<Member> {
        std::mem::take(&mut self.members)
    }

    /// What lies at `position`; nothing past the end.
    pub(crate) fn piece_at(&self, position: u64) -> Option<Piece> {
        if position < self.members_end {
            return Some(self.piece_of_member(position));
        }
        if position < self.records_end {
            let index = last_at_most(&self.records, position);
            return Some(Piece { what: What::Record(index), skip: position - self.records[index] });
        }
        let skip = position - self.records_end;
        let what = What::Text(self.end.clone());
        (skip < self.end.len() as u64).then_some(Piece { what, skip })
    }

    fn piece_of_member(&self, position: u64) -> Piece {
        let index = last_at_most(&self.starts, position);
        let member = &self.members[index];
        let mut skip = position - self.starts[index];
        let head = head(self.format, member);
        if skip < head.len() as u64 {
            return Piece { what: What::Text(head), skip };
        }
        skip -= head.len() as u64;
        let len = member.content_len();
        if skip < len {
            return Piece { what: What::Content(index), skip };
        }
        skip -= len;
        let what = match self.format {
            Format::Tar => What::Text(vec![0; tar::padding(len)]),
            Format::Zip => What::Descriptor(index),
        };
        Piece { what, skip }
    }

    /// The text of a descriptor of this member.
    pub(crate) fn descriptor(&self, index: usize, crc: u32) -> Vec<u8> {
        zip::descriptor(&self.members[index], crc)
    }

    /// The text of this member's record.
    pub(crate) fn record(&self, index: usize, crc: u32) -> Vec<u8> {
        zip::record(&self.members[index], self.starts[index], crc)
    }

    /// What tells this archive from any other, for an entity tag: two archives of which this is
    /// the same have the same bytes, as far as files that say that they are unchanged are.
    pub(crate) fn identify(&self, mut say: impl FnMut(&[u8])) {
        // Another number where a change of this program makes other bytes of the same members.
        say(b"pagewire archive 1");
        say(match self.format {
            Format::Tar => b"tar",
            Format::Zip => b"zip",
        });
        for (member, start) in self.members.iter().zip(&self.starts) {
            let number = |number: u64| number.to_le_bytes();
            say(&number(*start));
            say(&number(member.path.len() as u64));
            say(&member.path);
            say(&member.mode.to_le_bytes());
            say(&member.modified.seconds.to_le_bytes());
            match &member.kind {
                Kind::Directory => say(b"d"),
                Kind::File(stamp) => {
                    say(b"f");
                    say(&stamp.modified.nanoseconds.to_le_bytes());
                    for fact in [stamp.device, stamp.inode, stamp.len] {
                        say(&number(fact));
                    }
                }
                Kind::Link(leads_to) => {
                    say(b"l");
                    say(&number(leads_to.len() as u64));
                    say(leads_to);
                }
            }
        }
    }
}

fn head(format: Format, member: &Member) -> Vec<u8> {
    match format {
        Format::Tar => tar::head(member),
        Format::Zip => zip::head(member),
    }
}

fn tail_len(format: Format, member: &Member) -> u64 {
    match format {
        Format::Tar => tar::padding(member.content_len()) as u64,
        Format::Zip => zip::descriptor_len(member),
    }
}

/// The index of the last of these rising numbers that is at most `position`. Members that take
/// no room do not exist: each has a header.
fn last_at_most(starts: &[u64], position: u64) -> usize {
    starts.partition_point(|start| *start <= position).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use pagewire_engine::Modified;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::archive::member::Stamp;

    fn member(path: &str, kind: Kind) -> Member {
        let modified = Modified { seconds: 1_795_384_058, nanoseconds: 7 };
        Member { path: path.as_bytes().into(), kind, mode: 0o640, modified }
    }

    fn file(path: &str, len: u64) -> Member {
        let modified = Modified { seconds: 1_795_384_058, nanoseconds: 7 };
        member(path, Kind::File(Stamp { device: 1, inode: 2, len, modified }))
    }

    /// The bytes of an archive from `position` on, its files being full of one byte each.
    fn bytes_from(layout: &Layout, mut position: u64) -> Vec<u8> {
        let content = |index: usize| {
            let len = usize::try_from(layout.members()[index].content_len()).unwrap();
            vec![u8::try_from(index % 251).unwrap(); len]
        };
        let crc = |index| crc32fast::hash(&content(index));
        let mut bytes = Vec::new();
        while let Some(Piece { what, skip }) = layout.piece_at(position) {
            let piece = match what {
                What::Text(text) => text,
                What::Content(index) => content(index),
                What::Descriptor(index) => layout.descriptor(index, crc(index)),
                What::Record(index) => layout.record(index, crc(index)),
            };
            let rest = &piece[usize::try_from(skip).unwrap()..];
            assert!(!rest.is_empty(), "no way on from {position}");
            bytes.extend_from_slice(rest);
            position += rest.len() as u64;
        }
        bytes
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let name = "[a-z\u{e4}\u{5d0}/]{1,150}";
        let kind = prop_oneof![
            Just(Kind::Directory),
            (0_u64..2000).prop_map(|len| file("", len).kind),
            "[a-z/.]{1,200}".prop_map(|text| Kind::Link(text.into_bytes().into())),
        ];
        let one = (name, kind, any::<i64>(), 0_u32..0o1000);
        let one = one.prop_map(|(path, kind, seconds, mode)| Member {
            modified: Modified { seconds, nanoseconds: 0 },
            mode,
            ..member(&path, kind)
        });
        vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn any_range_is_that_of_the_whole(
            members in members(),
            zip: bool,
            at in 0.0..1.1_f64,
        ) {
            let format = if zip { Format::Zip } else { Format::Tar };
            let layout = Layout::new(format, members);
            let whole = bytes_from(&layout, 0);
            prop_assert_eq!(whole.len() as u64, layout.len());
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation,
                clippy::cast_sign_loss, reason = "any position will do")]
            let position = (whole.len() as f64 * at) as usize;
            let rest = bytes_from(&layout, position as u64);
            prop_assert_eq!(&rest[..], whole.get(position..).unwrap_or_default());
        }
    }

    #[test]
    fn tar_says_what_a_plain_header_cannot() {
        let long = "long/".repeat(60) + "name";
        let mut old = file("old", 3);
        old.modified.seconds = -5;
        let mut raw = file("x", 0);
        raw.path = [b"\xff".repeat(120).as_slice(), b"/\xfe"].concat().into();
        let link = member("link", Kind::Link(long.as_bytes().into()));
        let layout = Layout::new(Format::Tar, vec![file(&long, 5), old, raw.clone(), link]);
        let bytes = bytes_from(&layout, 0);
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut next = || entries.next().unwrap().unwrap();
        let mut content = [1; 5];
        let mut first = next();
        first.read_exact(&mut content).unwrap();
        assert_eq!((&*first.path_bytes(), content), (long.as_bytes(), [0; 5]));
        drop(first);
        let mut second = next();
        let pax = second.pax_extensions().unwrap().unwrap();
        let pax: Vec<_> = pax.map(|record| record.unwrap().value().unwrap().to_owned()).collect();
        assert_eq!(pax, ["-5"]);
        drop(second);
        assert_eq!(next().path_bytes(), raw.path.as_ref());
        assert_eq!(next().link_name_bytes().unwrap(), long.as_bytes());
        assert!(entries.next().is_none());
    }

    #[test]
    fn lengths_beyond_32_bits_are_said_in_64() {
        let large = 20_u64 << 30;
        let members = vec![file("large", large), file("small", 7)];
        let tar = Layout::new(Format::Tar, members.clone());
        assert_eq!(tar.len(), 512 + 1024 + large + 512 + 512 + 1024);
        let zip = Layout::new(Format::Zip, members);
        let What::Descriptor(0) = zip.piece_at(39 + 20 + 5 + large).unwrap().what else {
            panic!("{:?}", zip.piece_at(64 + large));
        };
        assert_eq!(zip.descriptor(0, 1).len(), 24);
        assert_eq!(zip.descriptor(1, 1).len(), 16);
        // Its header lies beyond 4 GiB.
        let record = zip.record(1, 1);
        assert!(record.windows(4).any(|field| field == [1, 0, 8, 0]), "{record:?}");
        let end = zip.piece_at(zip.len() - 1).unwrap();
        let What::Text(end) = end.what else { panic!("{end:?}") };
        assert!(end.starts_with(b"PK\x06\x06"), "{end:?}");
    }
}
