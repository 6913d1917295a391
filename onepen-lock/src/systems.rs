//! File systems on which a database must not lie, by name.
//!
//! Guarantees: nothing is opened; a system that is not known is not refused.
//!
//! Linux tells them by the magic number of `statfs`; FUSE is one number for
//! hundreds of them, told apart by the type of the mount. Elsewhere nothing is
//! refused: no number there is known to us.
//!
//! What is refused, and why: over the network, between a host and its virtual
//! machines, and in a cluster, either `fcntl` locks are not passed on to the
//! others (or are lost with the connection), or shared memory is not shared.
//! Either one corrupts. The kernel's overlayfs is fine: both work on its upper
//! layer.

use std::io;
use std::path::Path;

/// The name of the file system `path` lies on, if a database must not lie there.
///
/// # Errors
/// None, here.
#[cfg(not(target_os = "linux"))]
pub fn unfit(_path: &Path) -> io::Result<Option<String>> {
    Ok(None)
}

/// The name of the file system `path` lies on, if a database must not lie there.
///
/// # Errors
/// When nothing is at `path`, or it may not be looked at.
#[cfg(target_os = "linux")]
pub fn unfit(path: &Path) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;

    let magic = rustix::fs::statfs(path)?.f_type;
    // The word is signed or not, 32 bits or 64, as the architecture likes;
    // the number is 32 bits everywhere.
    let magic = magic as u32;
    if magic != FUSE {
        return Ok(by_magic(magic).map(str::to_owned));
    }
    let device = std::fs::metadata(path)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(unfit_fuse(&mounts, major, minor))
}

#[cfg(target_os = "linux")]
fn unfit_fuse(mounts: &str, major: u32, minor: u32) -> Option<String> {
    let name = mount_type(mounts, major, minor).unwrap_or("fuse");
    (!is_local_fuse(name)).then(|| format!("{name} (FUSE)"))
}

/// Whether `path` lies on the kernel's overlayfs, as the files of a container do:
/// fit for a database, but its files are other ones for whoever reaches them by
/// the layer below, and their locks too
/// (<https://docs.kernel.org/filesystems/overlayfs.html#non-standard-behavior>).
///
/// # Errors
/// As [`unfit`].
pub fn is_overlay(path: &Path) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::statfs(path)?.f_type as u32 == OVERLAY);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        Ok(false)
    }
}

/// What the system calls the file system `path` lies on, where it tells.
pub fn name(path: &Path) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;

        let device = std::fs::metadata(path).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        mount_type(&mounts, major, minor).map(str::to_owned)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

#[cfg(target_os = "linux")]
const OVERLAY: u32 = 0x794c_7630;
#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Numbers from `linux/magic.h`, and for those outside of the kernel's tree
/// from the list in `stat.c` of GNU coreutils.
#[cfg(target_os = "linux")]
fn by_magic(magic: u32) -> Option<&'static str> {
    Some(match magic {
        // Over the network.
        0x0000_6969 => "NFS",
        0x0000_517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x0000_564c => "NCP",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x00c3_6400 => "CephFS",
        0x0bd0_0bd0 => "Lustre",
        0x1983_0326 => "BeeGFS",
        0x2003_0528 => "OrangeFS",
        0xaad7_aaea => "PanFS",
        0x4750_4653 => "GPFS",
        0x0131_11a8 => "IBRIX",
        // One disk under several machines.
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x6163_6673 => "ACFS",
        0xbeef_dead => "SNFS",
        // Between a virtual machine or a container and its host.
        0x0102_1997 => "9p",
        0x786f_4256 => "vboxsf",
        0x7c7c_6673 => "prl_fs",
        0xbacb_acbc => "vmhgfs",
        0x5346_4846 => "wslfs",
        _ => return None,
    })
}

/// FUSE file systems that keep their files on this machine's own disks, so
/// that the kernel's locks and page cache are seen by all who open them.
/// Everything else on FUSE is refused (virtiofs, sshfs, s3fs, rclone, gcsfuse,
/// glusterfs, grpcfuse, …): new ones for the network appear each year.
#[cfg(target_os = "linux")]
fn is_local_fuse(mount_type: &str) -> bool {
    mount_type == "fuseblk"
        || matches!(
            mount_type.strip_prefix("fuse."),
            Some(
                "bindfs"
                    | "cryfs"
                    | "encfs"
                    | "exfat"
                    | "fuse-overlayfs"
                    | "gocryptfs"
                    | "mergerfs"
                    | "ntfs"
                    | "ntfs-3g"
                    | "securefs"
                    | "unionfs"
                    | "unionfs-fuse"
                    | "zfs"
            )
        )
}

/// The type of the mount with this device number in the text of
/// `/proc/self/mountinfo` (`man 5 proc_pid_mountinfo`).
#[cfg(target_os = "linux")]
fn mount_type(mountinfo: &str, major: u32, minor: u32) -> Option<&str> {
    let wanted = format!("{major}:{minor}");
    mountinfo.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == wanted).then(|| system.split(' ').next())?
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// By the numbers that the kernel's header, or coreutils, spells so.
    #[test]
    fn network_and_virtual_machine_file_systems_have_their_names() {
        let text = |text: &[u8; 4]| u32::from_be_bytes(*text);
        for (magic, name) in [
            (0x6969, "NFS"),
            (0x517b, "SMB"),
            (0xff00_0000 | text(b"\0SMB"), "CIFS"),
            (0xfe00_0000 | text(b"\0SMB"), "SMB2"),
            (0x564c, "NCP"),
            (text(b"SFAO"), "AFS"),
            (text(b"kAFS"), "AFS"),
            (text(b"surE"), "Coda"),
            (0x00c3_6400, "CephFS"),
            (0x0bd0_0bd0, "Lustre"),
            (0x1983_0326, "BeeGFS"),
            (0x2003_0528, "OrangeFS"),
            (0xaad7_aaea, "PanFS"),
            (text(b"GPFS"), "GPFS"),
            (0x0131_11a8, "IBRIX"),
            (0x0116_1970, "GFS2"),
            (text(b"taco"), "OCFS2"),
            (text(b"acfs"), "ACFS"),
            (0xbeef_dead, "SNFS"),
            (0x0102_1997, "9p"),
            (text(b"xoBV"), "vboxsf"),
            (text(b"||fs"), "prl_fs"),
            (0xbacb_acbc, "vmhgfs"),
            (text(b"SFHF"), "wslfs"),
        ] {
            assert_eq!(by_magic(magic), Some(name));
        }
    }

    #[test]
    fn local_file_systems_are_accepted() {
        for (magic, name) in [
            (0xef53, "ext4"),
            (0x5846_5342, "xfs"),
            (0x9123_683e, "btrfs"),
            (0x2fc1_2fc1, "zfs"),
            (0x0102_1994, "tmpfs"),
            (0x794c_7630, "overlayfs"),
            (0xf2f5_2010, "f2fs"),
            (0xca45_1a4e, "bcachefs"),
        ] {
            assert_eq!(by_magic(magic), None, "{name}");
        }
    }

    #[test]
    fn fuse_is_told_apart_by_the_type_of_its_mount() {
        for local in ["fuseblk", "fuse.gocryptfs", "fuse.fuse-overlayfs"] {
            assert!(is_local_fuse(local), "{local}");
        }
        for far in ["virtiofs", "fuse.sshfs", "fuse.rclone", "fuse", "fuse.new"] {
            assert!(!is_local_fuse(far), "{far}");
        }
    }

    #[test]
    fn a_fuse_file_system_is_named_by_its_mount_or_refused_without_a_name() {
        let mounts = "\
23 22 0:51 / /far rw - fuse.sshfs me@far:/ rw\n\
24 22 0:52 / /secret rw - fuse.gocryptfs secret rw\n";
        let unfit = |minor| unfit_fuse(mounts, 0, minor);
        assert_eq!(unfit(51).as_deref(), Some("fuse.sshfs (FUSE)"));
        assert_eq!(unfit(52), None);
        assert_eq!(unfit(53).as_deref(), Some("fuse (FUSE)"));
    }

    #[test]
    fn what_the_system_says_of_a_path_is_what_is_told() {
        assert_eq!(name(Path::new("/proc")).as_deref(), Some("proc"));
        assert_eq!(name(Path::new("/surely/not/there")), None);
        assert_eq!(unfit(Path::new("/proc")).unwrap(), None);
        assert!(!is_overlay(Path::new("/proc")).unwrap());
        assert!(is_overlay(Path::new("/surely/not/there")).is_err());
    }

    #[test]
    fn the_mount_is_found_by_its_device_number() {
        let mounts = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
97 22 0:51 / /mnt/far\\040away rw,nosuid shared:9 master:1 - fuse.sshfs me@far:/ rw,user_id=0\n\
98 22 0:5 / /odd\n\
99 22 0:52 / /mnt/host rw - virtiofs share rw\n";
        assert_eq!(mount_type(mounts, 254, 1), Some("ext4"));
        assert_eq!(mount_type(mounts, 0, 51), Some("fuse.sshfs"));
        assert_eq!(mount_type(mounts, 0, 52), Some("virtiofs"));
        assert_eq!(mount_type(mounts, 0, 5), None);
        assert_eq!(mount_type("", 0, 51), None);
    }

    #[test]
    fn this_system_is_asked_and_its_root_device_is_found() {
        assert!(unfit(Path::new("/surely/not/there")).is_err());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let proc = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata("/proc").unwrap());
        let found = mount_type(&mounts, rustix::fs::major(proc), rustix::fs::minor(proc));
        assert_eq!(found, Some("proc"));
    }
}
