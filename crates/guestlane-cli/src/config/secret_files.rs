//! Secrets from files: `NAME_FILE` beside `NAME`, or a systemd credential named `NAME`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::*;
use guestlane_runtime::durable_fs::{Exposed, expect_private};

/// Each secret, with the setting that names its file.
const SECRET_FILES: [(&str, &str); 5] = [
    (CLIENT_SECRET, CLIENT_SECRET_FILE),
    (WEBHOOK_SECRET, WEBHOOK_SECRET_FILE),
    (DATABASE_URL, DATABASE_URL_FILE),
    (MASTER_KEY, MASTER_KEY_FILE),
    (MASTER_KEY_PREVIOUS, MASTER_KEY_PREVIOUS_FILE),
];

/// Largest size of a secret file, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

const FIX: &str = "name a file that contains only the value";

impl Settings {
    /// Reads the secrets from their files, and checks that no file with a secret is accessible to
    /// others.
    ///
    /// `credentials` is systemd's `$CREDENTIALS_DIRECTORY`. A file in it with the name of a secret
    /// is its value, unless a setting has the value or names another file.
    ///
    /// # Errors
    /// Returns all secrets that are given twice, and all files that cannot be used.
    pub fn read_secret_files(&mut self, credentials: Option<&Path>) -> Result<(), Error> {
        let mut refused = self.exposed_settings_file().into_iter().collect::<Vec<_>>();
        for (secret, file) in SECRET_FILES {
            let given = self.values.contains_key(secret);
            let named = self.value(file).map(PathBuf::from);
            let path = match named {
                Some(_) if given => {
                    refused.push(ValidationError::new(
                        file,
                        format!("is set, and {secret} is set, too"),
                        "unset one of them",
                    ));
                    continue;
                }
                Some(path) => match expect_private(&path) {
                    Ok(()) => path,
                    Err(exposed) => {
                        refused.push(exposed_file(file, &exposed));
                        continue;
                    }
                },
                None => match credentials
                    .map(|directory| directory.join(secret))
                    .filter(|path| !given && path.exists())
                {
                    Some(path) => path,
                    None => continue,
                },
            };
            match read(&path) {
                Ok(text) => self.take(secret, &text, ValueSource::File(path)),
                Err(error) => {
                    let invalid = ValidationError::new(
                        file,
                        format!("{} cannot be read: {error}", path.display()),
                        FIX,
                    );
                    refused.push(if error.kind() == io::ErrorKind::InvalidData {
                        invalid
                    } else {
                        invalid.may_pass()
                    });
                }
            }
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Error::Settings(refused))
        }
    }

    /// Returns an error if the settings file contains a secret and others can read it.
    fn exposed_settings_file(&self) -> Option<ValidationError> {
        let secrets = SECRET_FILES
            .iter()
            .filter_map(|(secret, _)| match self.values.get(secret) {
                Some((value, ValueSource::File(path)))
                    if *secret != DATABASE_URL || value.contains('@') =>
                {
                    Some((secret, path))
                }
                _ => None,
            });
        let (secret, path) = secrets.into_iter().next()?;
        expect_private(path)
            .err()
            .map(|exposed| exposed_file(&format!("{secret} in {}", path.display()), &exposed))
    }
}

/// Reads a secret file. White space at both ends, such as the line break that editors add, is
/// removed later, as for any setting.
fn read(path: &Path) -> io::Result<String> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    let mut text = String::new();
    let read = file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text);
    read.map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            invalid("it is not UTF-8")
        } else {
            error
        }
    })?;
    if text.len() as u64 > MAX_SECRET_FILE {
        return Err(invalid("it is larger than 64 KiB"));
    }
    if text.trim().is_empty() {
        Err(invalid("it is empty"))
    } else {
        Ok(text)
    }
}

/// Returns the error for the setting that has the secret or names the file.
pub(super) fn exposed_file(setting: &str, exposed: &Exposed) -> ValidationError {
    let fix = format!("run `chmod o= {}`", exposed.path.display());
    ValidationError::new(setting, exposed.to_string(), fix).may_pass()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn file(directory: &Path, name: &str, content: &[u8], mode: u32) -> String {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn read_with(values: &[(&str, &str)], credentials: Option<&Path>) -> Result<Settings, String> {
        let mut settings = Settings::default();
        settings.add_environment(|name| {
            values
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        });
        settings
            .read_secret_files(credentials)
            .map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn secret_file_content_is_trimmed() {
        let directory = tempfile::tempdir().unwrap();
        for (secret, named) in SECRET_FILES {
            for (content, value) in [
                ("s3cret", "s3cret"),
                ("s3cret\n", "s3cret"),
                ("s3cret\r\n", "s3cret"),
                (" s3cret\n\n", "s3cret"),
            ] {
                let path = file(directory.path(), "secret", content.as_bytes(), 0o600);
                let settings = read_with(&[(named, &path)], None).unwrap();
                assert_eq!(settings.value(secret), Some(value), "{secret}");
            }
        }
    }

    #[test]
    fn systemd_credential_is_used_unless_setting_is_set() {
        let directory = tempfile::tempdir().unwrap();
        file(directory.path(), CLIENT_SECRET, b"from systemd\n", 0o440);
        let settings = read_with(&[], Some(directory.path())).unwrap();
        assert_eq!(settings.value(CLIENT_SECRET), Some("from systemd"));
        let settings = read_with(&[(CLIENT_SECRET, "set")], Some(directory.path())).unwrap();
        assert_eq!(settings.value(CLIENT_SECRET), Some("set"));
    }

    #[test]
    fn unusable_secret_file_is_refused_without_content() {
        let directory = tempfile::tempdir().unwrap();
        let large = vec![b'x'; 64 * 1024 + 1];
        for (content, mode, reason) in [
            (b"".as_slice(), 0o600, "it is empty"),
            (b"\n", 0o600, "it is empty"),
            (b"hunter2\xff", 0o600, "not UTF-8"),
            (&large, 0o600, "larger than 64 KiB"),
            (
                b"hunter2",
                0o644,
                "can be read or written by others (mode 644)",
            ),
        ] {
            let path = file(directory.path(), "secret", content, mode);
            let error = read_with(&[(CLIENT_SECRET_FILE, &path)], None).unwrap_err();
            assert!(
                error.contains(CLIENT_SECRET_FILE)
                    && error.contains(reason)
                    && !error.contains("hunter2"),
                "{error}"
            );
        }
        let path = file(directory.path(), "secret", b"hunter2", 0o600);
        let both = read_with(
            &[(CLIENT_SECRET_FILE, &path), (CLIENT_SECRET, "hunter2")],
            None,
        )
        .unwrap_err();
        assert!(
            both.contains("GENESYS_CLIENT_SECRET is set, too") && !both.contains("hunter2"),
            "{both}"
        );
        let nowhere = read_with(&[(MASTER_KEY_FILE, "/nowhere")], None).unwrap_err();
        assert!(
            nowhere.contains(MASTER_KEY_FILE) && nowhere.contains("/nowhere"),
            "{nowhere}"
        );
    }

    #[test]
    fn group_readable_secret_is_accepted_through_symlink() {
        let directory = tempfile::tempdir().unwrap();
        file(directory.path(), "..data", b"mounted", 0o440);
        let link = directory.path().join("secret");
        std::os::unix::fs::symlink("..data", &link).unwrap();
        let settings = read_with(&[(CLIENT_SECRET_FILE, link.to_str().unwrap())], None).unwrap();
        assert_eq!(settings.value(CLIENT_SECRET), Some("mounted"));
    }

    #[test]
    fn secret_in_settings_file_readable_by_others_fails() {
        let directory = tempfile::tempdir().unwrap();
        let read = |text: &str, mode| {
            let path = PathBuf::from(file(directory.path(), "g.toml", text.as_bytes(), mode));
            let mut settings = Settings::default();
            settings.add_file(&path, text).unwrap();
            settings
                .read_secret_files(None)
                .map_err(|error| error.to_string())
        };
        let secret = "[genesys]\nclient_secret = \"hunter2\"\n";
        let exposed = read(secret, 0o644).unwrap_err();
        assert!(
            exposed.contains("g.toml")
                && exposed.contains("mode 644")
                && !exposed.contains("hunter2"),
            "{exposed}"
        );
        read(secret, 0o600).unwrap();
        read(secret, 0o640).unwrap();
        read("[genesys]\nregion = \"eu-west-1\"\n", 0o644).unwrap();
        read("database_url = \"postgres://u:hunter2@db/x\"\n", 0o644).unwrap_err();
    }
}
