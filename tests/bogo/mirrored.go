// Most cases for records after the handshake are for clients only, though both sides have the same
// records. scripts/bogo puts this file beside BoringSSL's runner, which then has them for the
// server's side too, by the same names with "-Mirrored" behind.

package runner

import "path/filepath"

// mirrored are patterns of cases that do nothing which only a server can do.
var mirrored = []string{
	"CheckRecordVersion-TLS1[23]",
	"KeyUpdate-InvalidRequestMode",
	"KeyUpdate-RequestACK",
	"LargeCiphertext",
	"LargePlaintext*",
	"SendBogusAlertType",
	"SendEmptyRecords*",
	"SendPostHandshakeChangeCipherSpec-TLS13",
	"SendUserCanceledAlerts-*",
	"SendWarningAlerts-*",
	"Shutdown-Shim-TLS-Sync",
	"Shutdown-Shim-ApplicationData-TLS-Sync",
	"Shutdown-Shim-KeyUpdate-TLS-Sync",
	"TLS13-EmptyRecords",
	"TLS13-OnlyPadding",
	"TLS13-RecordPadding",
	"TLS13-WrongOuterRecord",
	"TLSFatalBadPackets",
	"TooManyKeyUpdates",
	"Unclean-Shutdown*",
}

func addMirroredTests() {
	for _, pattern := range mirrored {
		found := false
		for _, test := range testCases {
			same, err := filepath.Match(pattern, test.name)
			if err != nil {
				panic(err)
			}
			if same && test.testType == clientTest && test.protocol == tls {
				found = true
				test.testType = serverTest
				test.name += "-Mirrored"
				// A ticket would come before what the case waits for.
				test.flags = append([]string{"-no-ticket"}, test.flags...)
				testCases = append(testCases, test)
			}
		}
		if !found {
			panic("the runner has no case " + pattern)
		}
	}
}
