//! What does a newcomer start from? A repository of one source, one view and one service, that works as it is.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Result;
use super::output::print;
use crate::error::Error;

const FILES: [(&str, &str); 4] = [
    ("quern.yaml", include_str!("starter/quern.yaml")),
    ("definitions/customers.yaml", include_str!("starter/definitions/customers.yaml")),
    ("data/orders.csv", include_str!("starter/data/orders.csv")),
    (".gitignore", include_str!("starter/gitignore")),
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder to write it to; made where there is none
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(Arguments { directory }: &Arguments) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| Error::invalid(format!("{}: {error}", path.display()));
    for (name, _) in FILES {
        let path = directory.join(name);
        if path.exists() && name != ".gitignore" {
            return Err(
                Error::refused(format!("{} is there already; nothing was written", path.display())).into()
            );
        }
    }
    for (name, text) in FILES {
        let path = directory.join(name);
        let folder = path.parent().unwrap_or(directory);
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let written = fs::File::create_new(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        match written {
            Ok(()) => print(format!("wrote {}", path.display())),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                print(format!("kept {}", path.display()))
            }
            Err(error) => return Err(failed(&path, error).into()),
        }
    }
    let place = directory.display();
    print(format!(
        "\nnext:\n  quern apply {place}\n  quern materialize {place}\n  quern get {place} next_order_v1 customer=ada basket=25.0\n  \
         quern serve {place}"
    ));
    Ok(())
}
