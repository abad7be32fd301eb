//! `holdfast-devtenant`: runs a dev tenant until it is told to stop.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use holdfast_devtenant::{EchoBackend, Options, Tenant, TenantError};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for Auth0, for development and tests only: anybody who can reach it can get any token.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; loopback only
    #[arg(long, default_value = "127.0.0.1:4190")]
    listen: SocketAddr,
    /// The audience of the tokens
    #[arg(long, default_value = "https://api.example.com")]
    audience: String,
    /// Write the private key for encrypted tokens to this file (PEM, PKCS#8, mode 0600)
    #[arg(long, value_name = "FILE")]
    write_jwe_key: Option<PathBuf>,
    /// Also run a backend here that answers with the request it got; loopback only
    #[arg(long, value_name = "ADDRESS")]
    echo: Option<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Tenant(#[from] TenantError),
    #[error("cannot write {path}: {source}")]
    WriteKey { path: PathBuf, source: io::Error },
    #[error("cannot run: {0}")]
    System(#[from] io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("holdfast-devtenant: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let options =
        Options { listen: arguments.listen, audience: arguments.audience.clone(), ..Options::default() };
    let tenant = Tenant::start(options).await?;
    if let Some(path) = &arguments.write_jwe_key {
        let written = write_private(path, &tenant.jwe_private_key_pem());
        written.map_err(|source| Failure::WriteKey { path: path.clone(), source })?;
    }
    let echo = match arguments.echo {
        Some(address) => Some(EchoBackend::start(address).await?),
        None => None,
    };

    let mut out = io::stdout();
    writeln!(out, "issuer {}", tenant.issuer())?;
    writeln!(out, "audience {}", arguments.audience)?;
    if let Some(echo) = &echo {
        writeln!(out, "echo http://{}/", echo.address())?;
    }
    writeln!(out, "ready: curl -s '{}dev/token?email=direct'", tenant.issuer())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if let Some(echo) = echo {
        echo.stop().await;
    }
    tenant.stop().await;
    Ok(())
}

/// Writes a secret so that no other user can read it at any time, even if the file exists already.
fn write_private(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(secret.as_bytes())
}
