//! `holdfast inspect`: explains a token from stdin or a file. It takes no token on the command line, which
//! all users of the machine can read.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use holdfast::clock::Clock;
use holdfast::inspect::{Asking, Presented, Report, inspect};
use holdfast::instance::Instance;
use holdfast::route::Required;
use holdfast::route::requirement::in_query;
use holdfast::token::compact::UnverifiedHeader;
use holdfast::token::dpop::url::HttpUrl;

use super::{ConfigFlag, IssuerFlags, SourceArguments, block_on};

/// How much input is read, in bytes. This is enough to see that a token is too long.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// Exit code for bad usage or configuration.
const UNUSABLE: u8 = 2;

#[derive(Args)]
pub struct InspectArguments {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    issuer: IssuerFlags,
    /// The file with the token. Default: stdin.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Ask the issuer if holdfast would: this sends the token to it.
    #[arg(long)]
    ask: bool,
    /// What the route requires, as in the auth URL's query: `scope=read&role=admin`
    #[arg(long, value_name = "REQUIREMENTS")]
    require: Option<String>,
    /// The DPoP proof that comes with a token that is bound to a key
    #[arg(long, value_name = "PROOF", requires = "url")]
    dpop: Option<String>,
    /// The method of the request that the proof is for
    #[arg(long, value_name = "METHOD", default_value = "GET", requires = "dpop")]
    method: String,
    /// The URL of the request that the proof is for
    #[arg(long, value_name = "URL", requires = "dpop")]
    url: Option<String>,
    /// The client certificate that comes with a token bound to one, PEM or DER
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
}

/// Explains the token. Succeeds if the token would be accepted. An undecided answer is a failure.
pub fn run(arguments: InspectArguments) -> Result<(), ExitCode> {
    let InspectArguments { config, issuer, .. } = arguments;
    let (mut settings, _) = SourceArguments { config, issuer, ..SourceArguments::default() }.read()?;
    // This instance has no stores: a running service has locked the data directory, and a record in Redis
    // would answer in place of the issuer.
    settings.store.path = None;
    settings.store.redis = None;
    settings.store.secret_file = None;
    let token = read_token(arguments.file.as_deref()).map_err(unusable)?;
    let asking = if arguments.ask { Asking::Allowed } else { Asking::Withheld };
    let required = arguments.require.as_deref().unwrap_or_default();
    in_query(required)
        .try_for_each(|asked| asked.and_then(|(name, value)| name.check(&value, &settings.tiers)))
        .map_err(|bad| unusable(format!("--require: {bad}")))?;
    let url = match arguments.url.as_deref().map(|url| (url, HttpUrl::parse(url))) {
        Some((url, None)) => return Err(unusable(format!("--url: {url} is not a URL of http or https"))),
        url => url.and_then(|(_, url)| url),
    };
    let certificate = arguments.client_cert.as_deref().map(read_certificate).transpose().map_err(unusable)?;
    let presented = Presented { proof: arguments.dpop, method: Some(arguments.method), url, certificate };
    let report = block_on(async {
        let instance = Instance::build(settings, Clock::system(), None).map_err(unusable)?;
        Ok(inspect(&instance, &token, asking, &Required::Query(required), &presented).await)
    })?;
    let text = if arguments.json {
        serde_json::to_string(&report).map_err(unusable)? + "\n"
    } else {
        let is_colourful =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Page { text: String::new(), is_colourful }.fill(&report)
    };
    io::stdout().write_all(text.as_bytes()).map_err(unusable)?;
    if report.is_accepted() { Ok(()) } else { Err(ExitCode::FAILURE) }
}

fn unusable(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("holdfast: {error}");
    ExitCode::from(UNUSABLE)
}

fn read_token(file: Option<&Path>) -> Result<String, String> {
    let mut bytes = Vec::new();
    let (read, from) = match file {
        Some(path) => {
            let read =
                std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES).read_to_end(&mut bytes));
            (read, path.display().to_string())
        }
        None => {
            if io::stdin().is_terminal() {
                eprintln!("paste the token, then press Enter and Ctrl-D");
            }
            (io::stdin().take(MAX_INPUT_BYTES).read_to_end(&mut bytes), "stdin".to_owned())
        }
    };
    read.map_err(|error| format!("cannot read the token from {from}: {error}"))?;
    // Bytes that are not UTF-8 become U+FFFD. No token contains it, so the token is malformed.
    match bare(&String::from_utf8_lossy(&bytes)) {
        "" => Err(format!("there is no token in {from}; give it on stdin or with --file")),
        token => Ok(token.to_owned()),
    }
}

/// The first certificate in a file, DER in base64, as HAProxy and Caddy pass it on.
fn read_certificate(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot read the certificate from {}: {error}", path.display()))?;
    let pem = std::str::from_utf8(&bytes).ok().and_then(|text| {
        let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
        Some(rest.split_once("-----END CERTIFICATE-----")?.0.split_whitespace().collect())
    });
    Ok(pem.unwrap_or_else(|| STANDARD.encode(&bytes)))
}

/// The token in pasted text: the token alone, with its scheme, or the whole header line as a browser, curl or
/// a log shows it. Other text is judged as it is.
fn bare(pasted: &str) -> &str {
    /// The text after `word` (in any case) and one of the bytes `ends`.
    fn after<'t>(text: &'t str, word: &str, ends: &[u8]) -> Option<&'t str> {
        let (first, rest) = text.split_at_checked(word.len())?;
        (first.eq_ignore_ascii_case(word) && ends.contains(rest.as_bytes().first()?)).then(|| &rest[1..])
    }
    // Text that is copied from `curl -H '…'` or from JSON may have quotes.
    let quoted = ["'", "\""].iter().find_map(|q| pasted.trim().strip_prefix(q)?.strip_suffix(q));
    let line = quoted.unwrap_or(pasted).trim();
    let names = ["Authorization", "Proxy-Authorization"];
    let value = names.iter().find_map(|name| after(line, name, b":")).unwrap_or(line).trim();
    let schemes = ["Bearer", "DPoP"];
    schemes.iter().find_map(|scheme| after(value, scheme, b" \t")).unwrap_or(value).trim()
}

/// A report for people.
struct Page {
    text: String,
    is_colourful: bool,
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Page {
    fn fill(mut self, report: &Report) -> String {
        self.line("", "format", report.format);
        self.header("header", report.header.as_ref());
        self.header("nested header", report.nested_header.as_ref());
        self.line(
            "",
            "issuer",
            report.issuer.as_deref().unwrap_or("not known, or none of the configured ones"),
        );
        self.title("checks");
        for check in &report.checks {
            let mark = match check.ok {
                Some(true) => self.coloured(GREEN, "ok"),
                Some(false) => self.coloured(RED, "NO"),
                None => self.coloured(YELLOW, "--"),
            };
            self.line(&format!("  {mark} "), check.name, &check.found);
            if check.ok != Some(true) && !check.expected.is_empty() {
                self.line("     ", "  expected", &check.expected);
            }
        }
        if report.checks.iter().any(|check| check.ok.is_none()) {
            let mark = self.coloured(YELLOW, "--");
            let why = "not checked here: an earlier check failed, or only the issuer can say";
            self.text += &format!("  ({mark} means {why})\n");
        }
        if let Some(email) = &report.email {
            self.title("email");
            for tried in &email.tried {
                self.line("  ", &tried.entry, &tried.result);
            }
            let (found, source) = (email.found.as_deref(), email.source);
            self.line("  ", "email", found.unwrap_or("none"));
            self.line("  ", "from", source.unwrap_or("nowhere"));
            let verified = match email.email_verified {
                Some(true) => "true",
                Some(false) => "false",
                None => "not said",
            };
            self.line("  ", "email_verified", verified);
            if email.conflict {
                self.line("  ", "conflict", "a later claim names another email; the first in order wins");
            }
        }
        self.title("holdfast would answer");
        let status = match report.answer.status {
            Some(200) => self.coloured(GREEN, "200"),
            Some(status) => self.coloured(RED, &status.to_string()),
            None => self.coloured(YELLOW, "what the issuer says"),
        };
        self.text += &format!("  {status}: {}\n", printable(&report.answer.reason));
        for (name, value) in &report.answer.headers {
            self.line("  ", name, value);
        }
        self.text
    }

    fn header(&mut self, title: &str, header: Option<&UnverifiedHeader>) {
        if let Some(header) = header {
            self.title(title);
            for (name, value) in header.fields() {
                self.line("  ", name, value);
            }
        }
    }

    fn title(&mut self, title: &str) {
        let title = self.coloured(BOLD, title);
        self.text += &format!("{title}\n");
    }

    fn line(&mut self, before: &str, name: &str, value: &str) {
        self.text += &format!("{before}{:<18} {}\n", printable(name), printable(value));
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.is_colourful { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Escapes control characters: the values come from the token, and must not control the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c == '"' || c == '\'' || c == '\\' { vec![c] } else { c.escape_debug().collect() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_whatever_was_pasted() {
        for pasted in [
            "eyJ.a.b",
            "  eyJ.a.b \r\n",
            "Bearer eyJ.a.b",
            "bearer   eyJ.a.b\n",
            "DPoP eyJ.a.b",
            "Authorization: Bearer eyJ.a.b\r\n",
            "authorization:bearer\teyJ.a.b",
            "Authorization: DPoP eyJ.a.b",
            "Authorization: eyJ.a.b",
            "'Authorization: Bearer eyJ.a.b'",
            "\"eyJ.a.b\"",
        ] {
            assert_eq!(bare(pasted), "eyJ.a.b", "{pasted:?}");
        }
        for other in ["Basic YTpi", "Bearereyj", "Bearer", "a b c", "Cookie: session=a", "é", "'"] {
            assert_eq!(bare(other), other, "{other:?}");
        }
    }
}
