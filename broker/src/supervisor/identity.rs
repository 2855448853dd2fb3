//! From whatever we were started as to an ordinary user without a capability. capabilities(7)

use std::ffi::CString;

use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getresgid, getresuid, getuid, initgroups, setresgid,
    setresuid,
};
use tracing::{info, warn};

use super::Error;

/// Who we run as when root starts us and no `--user` is given.
const DEFAULT_USER: &str = "r-tftpd";

/// Who that is where nobody created the default user.
const FALLBACK_USER: &str = "nobody";

/// Who we shall be.
#[derive(Debug)]
pub(super) enum Identity {
    /// Started by root: becomes this user.
    Become {
        name: String,
        uid: Uid,
        gid: Gid,
        /// Nobody chose this user, there was just no better one.
        fallback: bool,
    },
    /// Started by an ordinary user, perhaps with capabilities: stays who we are.
    Stay,
}

/// What is left after [`Identity::assume`].
#[derive(Debug)]
pub(super) struct Rights {
    /// Who we are, for messages.
    pub(super) user: String,
    /// The bounding set could not be cleared; harmless with `no_new_privs`.
    pub(super) bounding_set_kept: bool,
}

impl Identity {
    /// Looks the user up.
    ///
    /// # Errors
    /// [`Error::SetUserId`], [`Error::UserWithoutRoot`], [`Error::UnknownUser`],
    /// [`Error::RootUser`].
    pub(super) fn resolve(wanted: Option<&str>) -> Result<Self, Error> {
        if getuid() != geteuid() {
            return Err(Error::SetUserId);
        }
        match wanted {
            Some(name) if !geteuid().is_root() => Err(Error::UserWithoutRoot(name.into())),
            None if !geteuid().is_root() => Ok(Self::Stay),
            Some(name) => find(name)?.ok_or_else(|| Error::UnknownUser(name.into())),
            None => match find(DEFAULT_USER)? {
                Some(identity) => Ok(identity),
                None => match find(FALLBACK_USER)? {
                    Some(Self::Become { name, uid, gid, .. }) => Ok(Self::Become {
                        name,
                        uid,
                        gid,
                        fallback: true,
                    }),
                    _ => Err(Error::UnknownUser(DEFAULT_USER.into())),
                },
            },
        }
    }

    /// Gives up every right that we were started with.
    ///
    /// # Errors
    /// [`Error::Become`], [`Error::Capabilities`].
    pub(super) fn assume(&self, activated: bool) -> Result<Rights, Error> {
        let had_capabilities = !held(CapSet::Permitted)?.is_empty();
        // The bounding set first: clearing it takes CAP_SETPCAP. Without it, nothing is lost: with
        // no_new_privs no exec can raise what the bounding set would forbid.
        let _ = caps::clear(None, CapSet::Bounding);
        let user = match self {
            Self::Become {
                name,
                uid,
                gid,
                fallback,
            } => {
                become_user(name, *uid, *gid)?;
                if *fallback {
                    warn!(
                        "running as {FALLBACK_USER}, which other services share: create a user of \
                         our own with `useradd --system --no-create-home --shell \
                         /usr/sbin/nologin {DEFAULT_USER}`"
                    );
                }
                name.clone()
            }
            Self::Stay => {
                let (uid, gid) = (geteuid(), getegid());
                settle(uid, gid)?;
                if !had_capabilities && !activated {
                    info!(
                        uid = uid.as_raw(),
                        "not started by root: all processes keep the user who started them"
                    );
                }
                User::from_uid(uid)
                    .ok()
                    .flatten()
                    .map_or(uid.to_string(), |user| user.name)
            }
        };
        // Ambient ones would survive an exec; the others go with them, the effective ones first, as
        // those must be permitted. What is empty is left alone: a service manager that gave us
        // nothing may forbid capset(2), too.
        for set in [
            CapSet::Ambient,
            CapSet::Effective,
            CapSet::Permitted,
            CapSet::Inheritable,
        ] {
            if !held(set)?.is_empty() {
                caps::clear(None, set).map_err(|error| Error::Capabilities(error.to_string()))?;
            }
        }
        let ids = getresuid().map_err(Error::system("getresuid"))?;
        if [ids.real, ids.effective, ids.saved]
            .iter()
            .any(|uid| uid.is_root())
        {
            return Err(Error::RootUser(user));
        }
        Ok(Rights {
            user,
            bounding_set_kept: !held(CapSet::Bounding)?.is_empty(),
        })
    }
}

/// Makes the saved ids, from which the old ones could be taken back, those in use. Only where they
/// differ: a service manager may forbid the calls. Group before user, as in [`become_user`].
fn settle(uid: Uid, gid: Gid) -> Result<(), Error> {
    let groups = getresgid().map_err(Error::system("getresgid"))?;
    if [groups.real, groups.saved] != [gid; 2] {
        setresgid(gid, gid, gid).map_err(Error::system("setresgid"))?;
    }
    let users = getresuid().map_err(Error::system("getresuid"))?;
    if [users.real, users.saved] != [uid; 2] {
        setresuid(uid, uid, uid).map_err(Error::system("setresuid"))?;
    }
    Ok(())
}

/// Groups, then group, then user: each step needs the rights the next one takes.
fn become_user(name: &str, uid: Uid, gid: Gid) -> Result<(), Error> {
    let failed = |call| move |errno| Error::Become(name.to_owned(), call, errno);
    let c_name = CString::new(name).map_err(|_| Error::UnknownUser(name.into()))?;
    // The user's own groups: files for a group are served when the user was put into it.
    initgroups(&c_name, gid).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))
}

fn held(set: CapSet) -> Result<CapsHashSet, Error> {
    caps::read(None, set).map_err(|error| Error::Capabilities(error.to_string()))
}

/// Looks `name` up; none if there is no such user.
fn find(name: &str) -> Result<Option<Identity>, Error> {
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Err(Error::RootUser(name.into())),
        Ok(Some(User { name, uid, gid, .. })) => Ok(Some(Identity::Become {
            name,
            uid,
            gid,
            fallback: false,
        })),
        // What a system without a user database answers. getpwnam(3)
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(errno) => Err(Error::System("getpwnam", errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_as_a_user() {
        assert!(matches!(find("root"), Err(Error::RootUser(_))));
    }

    #[test]
    fn an_unknown_user_is_not_found() {
        assert!(find("no-such-user-here").unwrap().is_none());
        let error = Error::UnknownUser("tftp".into()).to_string();
        assert!(error.contains("useradd --system"), "{error}");
    }

    #[test]
    fn a_user_can_only_be_chosen_by_root() {
        let resolved = Identity::resolve(Some("nobody"));
        if geteuid().is_root() {
            assert!(matches!(resolved, Ok(Identity::Become { .. })));
        } else {
            assert!(matches!(resolved, Err(Error::UserWithoutRoot(_))));
        }
    }
}
