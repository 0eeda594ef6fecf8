// Package userdata turns #cloud-config documents into the settings of one
// machine.
//
// Documents come from package source, or from any caller that holds bytes (the
// builder checks the examples of configs/user-data with it). Load merges them
// (vendor-data first, then user-data, later documents win key by key, the maps
// of rke2 merged, lists replaced) and says what is wrong with source, line and
// key. Boot applies the result: package userdata itself never touches the
// machine, opens no file and knows no network.
//
//	cfg, problems := userdata.Load(docs)
//	for _, p := range problems {
//		fmt.Fprintf(console, "keelson: user-data: %s\n", p)
//	}
//	if userdata.Refused(problems) { wait for corrected user-data }
//	cfg.Files holds everything that is to be written, rke2's map included.
//
// The format is cloud-init's (canonical/cloud-init, doc/rtd/explanation/format):
// the keys an immutable node can honour are honoured, the rest is reported by
// name. Documents may be gzip and MIME multipart; scripts, includes, boothooks
// and jinja templates are named and skipped, for there is no shell to run them.
package userdata
