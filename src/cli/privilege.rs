//! Rights are needed to open interfaces and for nothing else: they go before the first thread starts and the first packet is read.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

/// Who the process goes on as.
pub(super) struct Plan {
    user: Option<User>,
}

/// What a root process becomes when nobody says otherwise and no sudo tells who is behind it.
const NOBODY: &str = "nobody";

impl Plan {
    /// Whom `-Z` names; else, for root, who called sudo, or nobody. `root` stays root, without capabilities.
    ///
    /// # Errors
    /// When there is no such user, or another one is asked for without being root.
    pub(super) fn new(asked: Option<&str>) -> Result<Self> {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            if let Some(name) = asked {
                bail!("-Z {name}: only root can become another user");
            }
            return Ok(Self { user: None });
        }
        let behind = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
        let name = asked.map(str::to_owned).or(behind).unwrap_or_else(|| NOBODY.to_owned());
        let user = User::from_name(&name).with_context(|| format!("-Z {name}: the user cannot be looked up"))?;
        match user {
            Some(user) => Ok(Self { user: Some(user) }),
            None => bail!("-Z {name}: there is no such user"),
        }
    }

    /// Who owns the files that are written: `None` is whoever runs this.
    fn owner(&self) -> Option<(u32, u32)> {
        self.user.as_ref().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
    }

    /// A file for this process to write to, once it is somebody else.
    ///
    /// # Errors
    /// When it cannot be made or given away.
    pub(super) fn create(&self, path: &Path) -> Result<File> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        if let Some((user, group)) = self.owner() {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))
                .with_context(|| format!("cannot give {} to {}", path.display(), self.name().unwrap_or("its user")))?;
        }
        Ok(file)
    }

    /// A folder for evidence, made if need be, for whoever this process will be.
    ///
    /// # Errors
    /// When it cannot be made or given away.
    pub(super) fn folder<'a>(&self, folder: &'a Path) -> Result<&'a Path> {
        let failed = || format!("cannot use {} for evidence", folder.display());
        if !folder.is_dir() {
            std::fs::create_dir_all(folder).with_context(failed)?;
            if let Some((user, group)) = self.owner() {
                std::os::unix::fs::chown(folder, Some(user), Some(group)).with_context(failed)?;
            }
        }
        Ok(folder)
    }

    /// The name, for messages.
    pub(super) fn name(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.name.as_str())
    }

    /// Gives everything up, for good. Has to run before any thread starts: rights belong to threads.
    ///
    /// # Errors
    /// When the system refuses; then nothing may go on.
    pub(super) fn carry_out(&self) -> Result<()> {
        let held = caps::read(None, CapSet::Permitted).context("capabilities cannot be read")?;
        if held.contains(&Capability::CAP_SETPCAP) {
            // What is not in this set cannot be had again by running a program. Kernels know fewer capabilities than the library.
            caps::all().into_iter().for_each(|one| drop(caps::drop(None, CapSet::Bounding, one)));
        }
        if let Some(User { uid, gid, .. }) = &self.user {
            self.become_user(*uid, *gid)?;
        }
        for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            // Kernels before 4.3 have no ambient set.
            let cleared = caps::clear(None, set);
            if !matches!(set, CapSet::Ambient) {
                cleared.with_context(|| format!("capabilities cannot be dropped ({set:?})"))?;
            }
        }
        nix::sys::prctl::set_no_new_privs().context("no_new_privs cannot be set")?;
        let left = caps::read(None, CapSet::Permitted).context("capabilities cannot be read")?;
        if !left.is_empty() {
            bail!("capabilities are left: {left:?}");
        }
        Ok(())
    }

    fn become_user(&self, uid: Uid, gid: Gid) -> Result<()> {
        let name = self.name().unwrap_or(NOBODY);
        setgroups(&[gid])
            .and_then(|()| setresgid(gid, gid, gid))
            .with_context(|| format!("cannot take the group of {name}"))?;
        setresuid(uid, uid, uid).with_context(|| format!("cannot become {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_is_refused() {
        let refused = Plan::new(Some("no-such-user-here")).err().expect("refused").to_string();
        assert!(refused.contains("no such user") || refused.contains("only root"), "{refused}");
    }
}
