// Package source finds user-data, vendor-data, meta-data and network-config.
//
// It looks at, in rising precedence: the files of the ESP below /keelson, a
// NoCloud volume (label cidata, vfat or iso9660), QEMU's fw_cfg
// (opt/keelson/NAME), and keelson.user-data= on the kernel command line. Every
// file is optional and bounded in size. Where none of them gives anything, the
// copy that Store kept on STATE is used. Package source never interprets a
// document: userdata.Load and netconfig.Load do.
//
//	docs, err := source.Collect(ctx, source.Config{
//		Cmdline: cmdline, ESP: "/dev/vda2", FwCfg: source.DefaultFwCfg, LoadModule: modules.Load,
//		Stored: layout.UserData, Settle: 3 * time.Second, NextDevice: blockEvents,
//	})
//	... userdata.Load(docs) without a fatal problem ...
//	err = source.Store(layout.UserData, docs)
//
// After a refusal, a block device that appears or changes its medium makes
// Collect worth another try.
package source
