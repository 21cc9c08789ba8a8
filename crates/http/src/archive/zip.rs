//! The zip format (APPNOTE 6.3.10, stored members, zip64 where needed): the text around each
//! file. PURE.
//!
//! A file's checksum follows its bytes (bit 3), because it is known only when they were read.

use jiff::{Timestamp, tz::Offset};

use crate::archive::member::{Kind, Member};

/// A field of 32 bits that says "see the zip64 field".
const SEE_ZIP64: u32 = u32::MAX;

const FLAG_CHECKSUM_FOLLOWS: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

/// By what system the attributes are meant: Unix; by which version of the format: 4.5.
const MADE_BY: u16 = (3 << 8) | 45;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const DOS_DIRECTORY: u32 = 0x10;

/// The local header, and where a link leads: that is its content.
pub(crate) fn head(member: &Member) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + member.path.len());
    let fields = Fields::of(member);
    let crc = if fields.checksum_follows { 0 } else { checksum_of_text(&fields.text) };
    let mut extra = timestamp(member);
    let len32 = if fields.zip64 {
        // Both lengths are in the descriptor, in 64 bits because of this field.
        extra.extend_from_slice(&[1, 0, 16, 0]);
        extra.extend_from_slice(&[0; 16]);
        SEE_ZIP64
    } else if fields.checksum_follows {
        0
    } else {
        u32::try_from(fields.text.len()).unwrap_or(SEE_ZIP64)
    };
    put32(&mut out, 0x0403_4b50);
    put16(&mut out, fields.version());
    put16(&mut out, fields.flags());
    put16(&mut out, 0);
    put32(&mut out, dos_time(member));
    put32(&mut out, crc);
    put32(&mut out, len32);
    put32(&mut out, len32);
    put16(&mut out, len16(fields.name.len()));
    put16(&mut out, len16(extra.len()));
    out.extend_from_slice(&fields.name);
    out.extend_from_slice(&extra);
    out.extend_from_slice(&fields.text);
    out
}

/// The length of what goes after a member's bytes.
pub(crate) fn descriptor_len(member: &Member) -> u64 {
    let fields = Fields::of(member);
    match (fields.checksum_follows, fields.zip64) {
        (false, _) => 0,
        (true, false) => 16,
        (true, true) => 24,
    }
}

/// What goes after the bytes of a file that has any.
pub(crate) fn descriptor(member: &Member, crc: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    put32(&mut out, 0x0807_4b50);
    put32(&mut out, crc);
    let len = member.content_len();
    for _ in ["compressed", "uncompressed"] {
        match u32::try_from(len) {
            Ok(len) if !Fields::of(member).zip64 => put32(&mut out, len),
            _ => put64(&mut out, len),
        }
    }
    out
}

/// The member's record in the central directory, which says where its local header lies. The
/// checksum of a file without bytes is 0.
pub(crate) fn record(member: &Member, header_at: u64, crc: u32) -> Vec<u8> {
    let fields = Fields::of(member);
    let crc = if fields.checksum_follows { crc } else { checksum_of_text(&fields.text) };
    let len = member.content_len() + fields.text.len() as u64;
    let mut zip64 = Vec::new();
    let len32 = if fields.zip64 {
        put64(&mut zip64, len);
        put64(&mut zip64, len);
        SEE_ZIP64
    } else {
        u32::try_from(len).unwrap_or(SEE_ZIP64)
    };
    let at32 = u32::try_from(header_at).unwrap_or(SEE_ZIP64);
    if at32 == SEE_ZIP64 {
        put64(&mut zip64, header_at);
    }
    let mut extra = timestamp(member);
    if !zip64.is_empty() {
        put16(&mut extra, 1);
        put16(&mut extra, len16(zip64.len()));
        extra.extend_from_slice(&zip64);
    }
    let mut out = Vec::with_capacity(64 + fields.name.len());
    put32(&mut out, 0x0201_4b50);
    put16(&mut out, MADE_BY);
    put16(&mut out, if zip64.is_empty() { fields.version() } else { 45 });
    put16(&mut out, fields.flags());
    put16(&mut out, 0);
    put32(&mut out, dos_time(member));
    put32(&mut out, crc);
    put32(&mut out, len32);
    put32(&mut out, len32);
    put16(&mut out, len16(fields.name.len()));
    put16(&mut out, len16(extra.len()));
    out.extend_from_slice(&[0; 6]);
    put32(&mut out, fields.attributes);
    put32(&mut out, at32);
    out.extend_from_slice(&fields.name);
    out.extend_from_slice(&extra);
    out
}

/// The end of an archive of `count` members whose central directory has `len` bytes and starts
/// at `at`.
pub(crate) fn end(count: u64, at: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(98);
    let count16 = u16::try_from(count).unwrap_or(u16::MAX);
    let len32 = u32::try_from(len).unwrap_or(SEE_ZIP64);
    let at32 = u32::try_from(at).unwrap_or(SEE_ZIP64);
    if count16 == u16::MAX || len32 == SEE_ZIP64 || at32 == SEE_ZIP64 {
        put32(&mut out, 0x0606_4b50);
        // What follows of this record.
        put64(&mut out, 44);
        put16(&mut out, MADE_BY);
        put16(&mut out, 45);
        put64(&mut out, 0);
        put64(&mut out, count);
        put64(&mut out, count);
        put64(&mut out, len);
        put64(&mut out, at);
        put32(&mut out, 0x0706_4b50);
        put32(&mut out, 0);
        put64(&mut out, at + len);
        put32(&mut out, 1);
    }
    put32(&mut out, 0x0605_4b50);
    put32(&mut out, 0);
    put16(&mut out, count16);
    put16(&mut out, count16);
    put32(&mut out, len32);
    put32(&mut out, at32);
    put16(&mut out, 0);
    out
}

/// What local header, descriptor and record have to agree on.
struct Fields {
    name: Vec<u8>,
    /// Where a link leads.
    text: Vec<u8>,
    attributes: u32,
    checksum_follows: bool,
    /// Its length does not fit 32 bits.
    zip64: bool,
}

impl Fields {
    fn of(member: &Member) -> Self {
        let mut name = Vec::from(&*member.path);
        let mut text = Vec::new();
        let kind = match &member.kind {
            Kind::Directory => {
                name.push(b'/');
                S_IFDIR
            }
            Kind::File(_) => S_IFREG,
            Kind::Link(leads_to) => {
                text.extend_from_slice(leads_to);
                S_IFLNK
            }
        };
        let dos = if kind == S_IFDIR { DOS_DIRECTORY } else { 0 };
        Self {
            name,
            text,
            attributes: ((kind | member.mode) << 16) | dos,
            checksum_follows: member.content_len() > 0,
            zip64: member.content_len() >= u64::from(SEE_ZIP64),
        }
    }

    /// The version of the format that is needed to unpack it.
    fn version(&self) -> u16 {
        if self.zip64 { 45 } else { 20 }
    }

    fn flags(&self) -> u16 {
        let utf8 = if str::from_utf8(&self.name).is_ok() { FLAG_UTF8 } else { 0 };
        let checksum = if self.checksum_follows { FLAG_CHECKSUM_FOLLOWS } else { 0 };
        utf8 | checksum
    }
}

fn checksum_of_text(text: &[u8]) -> u32 {
    crc32fast::hash(text)
}

/// The modification time in seconds since 1970 ("UT"), where it fits; the plain fields have
/// neither odd seconds nor a time zone.
fn timestamp(member: &Member) -> Vec<u8> {
    let mut extra = Vec::new();
    if let Ok(seconds) = i32::try_from(member.modified.seconds) {
        extra.extend_from_slice(b"UT");
        put16(&mut extra, 5);
        extra.push(1);
        extra.extend_from_slice(&seconds.to_le_bytes());
    }
    extra
}

/// Date and time of the plain fields, in UTC: 1980 to 2107, in steps of two seconds.
fn dos_time(member: &Member) -> u32 {
    const FIRST: u32 = (1 << 5) | 1;
    let Ok(time) = Timestamp::from_second(member.modified.seconds) else {
        return FIRST << 16;
    };
    let time = Offset::UTC.to_datetime(time);
    let field = |value: i8| u32::from(value.unsigned_abs());
    let date = match u32::from(time.year().unsigned_abs()).checked_sub(1980) {
        Some(year @ ..=127) if time.year() > 0 => {
            (year << 9) | (field(time.month()) << 5) | field(time.day())
        }
        _ => return FIRST << 16,
    };
    let seconds = field(time.second()) / 2;
    (date << 16) | (field(time.hour()) << 11) | (field(time.minute()) << 5) | seconds
}

/// Names and fields here are shorter than 64 KiB, as paths are.
fn len16(len: usize) -> u16 {
    u16::try_from(len).expect("paths have at most 4096 bytes")
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
