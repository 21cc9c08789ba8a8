//! SIOCETHTOOL: the features of a network device, as ethtool(8) shows them with -k. Any user may
//! ask. rustix lacks it, and so do crates: ethtool 0.3.0 drops the feature of index 0, which is
//! scatter-gather.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

// linux/ethtool.h
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// Linux 6.18 knows 64; a kernel may have so many more before it is refused.
const FEATURES_MAX: usize = 256;
const BLOCKS_MAX: usize = FEATURES_MAX / 32;

/// `struct ethtool_sset_info` with room for one answer.
#[repr(C)]
struct SetInfo {
    command: u32,
    reserved: u32,
    set_mask: u64,
    counts: [u32; 2],
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; ETH_GSTRING_LEN]; FEATURES_MAX],
}

/// `struct ethtool_get_features_block`: a bit for each of 32 features.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block {
    /// What may be changed.
    pub(crate) available: u32,
    /// What was asked for.
    pub(crate) requested: u32,
    /// What is on.
    pub(crate) active: u32,
    /// What no device lets change.
    pub(crate) never_changed: u32,
}

/// `struct ethtool_gfeatures`.
#[repr(C)]
struct Features {
    command: u32,
    size: u32,
    blocks: [Block; BLOCKS_MAX],
}

const _: () = assert!(size_of::<SetInfo>() == 24 && align_of::<SetInfo>() == 8);
const _: () = assert!(size_of::<Strings>() == 12 + ETH_GSTRING_LEN * FEATURES_MAX);
const _: () = assert!(size_of::<Block>() == 16 && size_of::<Features>() == 8 + 16 * BLOCKS_MAX);

/// How many features this kernel knows (ETHTOOL_GSSET_INFO, Linux 2.6.34).
///
/// ENODEV when there is no such device.
pub(crate) fn feature_count(socket: impl AsFd, device: &str) -> io::Result<usize> {
    let set_mask = 1 << ETH_SS_FEATURES;
    let mut info = SetInfo { command: ETHTOOL_GSSET_INFO, reserved: 0, set_mask, counts: [0; 2] };
    // SAFETY: the kernel reads the head of `info` and writes it back with one count for the one
    // bit of the mask, which there is room for.
    unsafe { ask(socket, device, &mut info) }?;
    Ok(usize::try_from(info.counts[0]).unwrap_or(usize::MAX))
}

/// Their names in the order of their bits (ETHTOOL_GSTRINGS).
///
/// E2BIG when the kernel knows more than this file has room for.
pub(crate) fn feature_names(socket: impl AsFd, device: &str) -> io::Result<Vec<String>> {
    // The kernel writes all of its names, whatever room it was told of.
    if feature_count(&socket, device)? > FEATURES_MAX {
        return Err(Errno::TOOBIG.into());
    }
    let names = [[0; ETH_GSTRING_LEN]; FEATURES_MAX];
    let mut strings = Strings { command: ETHTOOL_GSTRINGS, set: ETH_SS_FEATURES, count: 0, names };
    // SAFETY: the kernel writes the head of `strings` and as many names as it counted above; the
    // count is a constant of the running kernel, and there is room for it.
    unsafe { ask(socket, device, &mut strings) }?;
    let count = usize::try_from(strings.count).unwrap_or(0);
    let text = |name: &[u8; ETH_GSTRING_LEN]| {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(ETH_GSTRING_LEN);
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    Ok(strings.names.iter().take(count).map(text).collect())
}

/// The state of each, 32 a block (ETHTOOL_GFEATURES, Linux 2.6.39).
pub(crate) fn feature_blocks(socket: impl AsFd, device: &str) -> io::Result<Vec<Block>> {
    let blocks = [Block::default(); BLOCKS_MAX];
    let size = u32::try_from(BLOCKS_MAX).unwrap_or(0);
    let mut features = Features { command: ETHTOOL_GFEATURES, size, blocks };
    // SAFETY: the kernel writes the head of `features` and at most `size` blocks, which there is
    // room for.
    unsafe { ask(socket, device, &mut features) }?;
    let size = usize::try_from(features.size).unwrap_or(0);
    Ok(features.blocks.into_iter().take(size).collect())
}

/// One SIOCETHTOOL by way of any socket of the device's network namespace.
///
/// # Safety
///
/// `data` begins with a command of linux/ethtool.h, has the layout that belongs to it, and room
/// for all that the kernel writes for it.
unsafe fn ask<T>(socket: impl AsFd, device: &str, data: &mut T) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    if device.is_empty() || device.len() >= libc::IFNAMSIZ {
        return Err(Errno::NODEV.into());
    }
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let ifr_data = (&raw mut *data).cast();
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: ifr_data };
    let request = libc::ifreq { ifr_name: name, ifr_ifru };
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the whole call, being borrowed; the request names a
    // device with a terminated name and points to `data`, which is borrowed for the call and has
    // the room that the caller promises.
    match unsafe { libc::ioctl(fd, libc::SIOCETHTOOL as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn loopback_has_scatter_gather_and_cannot_be_told_otherwise() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let names = feature_names(&socket, "lo").unwrap();
        assert_eq!(names.len(), feature_count(&socket, "lo").unwrap());
        let bit = names.iter().position(|name| name == "tx-scatter-gather").unwrap();
        let blocks = feature_blocks(&socket, "lo").unwrap();
        assert!(blocks.len() * 32 >= names.len(), "{blocks:?}");
        let (block, mask) = (blocks[bit / 32], 1 << (bit % 32));
        assert_ne!(block.active & mask, 0, "{block:?}");
        assert_eq!(block.available & mask, 0, "{block:?}");
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for device in ["pagewire-none", "", "a-name-that-is-too-long-for-a-device"] {
            let refusal = feature_names(&socket, device).unwrap_err();
            assert_eq!(Errno::from_io_error(&refusal), Some(Errno::NODEV), "{device}");
        }
    }
}
