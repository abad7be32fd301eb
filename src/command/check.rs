//! `holdfast check`: the configuration is good (or we would not be here), and the issuers answer.

use std::process::ExitCode;
use std::sync::Arc;

use holdfast::clock::Clock;
use holdfast::config::Settings;
use holdfast::guard::Priority;
use holdfast::issuer::client::Client;
use holdfast::issuer::{Issuer, Surroundings};
use holdfast::login::Login;
use holdfast::server::tls::ServerTls;
use holdfast::telemetry::metrics::Metrics;
use holdfast::token::jwe::DecryptionKeys;

use super::{block_on, fail};

/// Asks every issuer for its discovery document and keys, and says what came.
pub fn run(settings: Settings) -> Result<(), ExitCode> {
    println!("configuration: good");
    if let Some(tls) = &settings.auth.tls {
        let loaded = ServerTls::load(tls).map_err(fail)?;
        println!("TLS: certificate {} is good until {}", tls.certificate.display(), loaded.expires());
    }
    if let Some(login) = &settings.login {
        Login::load(login).map_err(fail)?;
        println!("login: browsers are sent to {}", login.url);
    }
    block_on(async {
        let with = Surroundings {
            client: Client::new().map_err(fail)?,
            clock: Clock::system(),
            metrics: Arc::new(Metrics::new().map_err(fail)?),
            guard: settings.guard.clone(),
        };
        let (mut all_answer, mut keys) = (true, Vec::new());
        for issuer in settings.issuers {
            let issuer = Issuer::new(issuer, &with, None, Box::new(|_, _| {})).map_err(fail)?;
            match issuer.refresh(Priority::Foreground).await {
                Ok(()) => {
                    println!("issuer {}: answers; keys: {}", issuer.name(), issuer.key_ids().join(", "))
                }
                Err(error) => {
                    all_answer = false;
                    println!("issuer {}: {error}", issuer.name());
                }
            }
            for key in issuer.decryption_keys().describe() {
                let id = key.kid.as_deref().unwrap_or("no kid");
                println!("  decryption key {id} ({}) from {}", key.kty, key.file.display());
            }
            keys.push(issuer.decryption_keys().clone());
        }
        DecryptionKeys::together(&keys).map_err(fail)?;
        if all_answer { Ok(()) } else { Err(ExitCode::FAILURE) }
    })
}
