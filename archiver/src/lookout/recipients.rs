//! Whether one lost identity would be the loss of everything.

use walseal_common::seal::Recipient;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};

/// Judges to whom objects are sealed; that changes with a restart only.
pub fn judge_recipients(alerts: &Alerts, recipients: &[Recipient]) {
    const KIND: AlertKind = AlertKind::OneRecipient;
    match recipients {
        [one] => {
            let text = format!(
                "objects are sealed to {one} only: if its identity is lost, so is every backup; make a second identity \
                 (walseal-restorer keygen), keep it offline, and add its recipient to keys.recipients"
            );
            alerts.raise(KIND, "", Severity::Warning, text);
        }
        several => {
            alerts.clear(KIND, "", format!("objects are sealed to {} recipients", several.len()));
        }
    }
}
