package telemetry

import (
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keelson/node/certificate"
)

// certificates tells how long each certificate of this machine still holds, under RKE2's name (k3s pkg/metrics).
type certificates struct {
	dataDir string
	log     *slog.Logger
}

// Describe implements prometheus.Collector.
func (c certificates) Describe(all chan<- *prometheus.Desc) { all <- c.desc() }

func (certificates) desc() *prometheus.Desc {
	return prometheus.NewDesc("rke2_certificate_expiration_seconds", "Remaining lifetime of the certificate, in seconds.", []string{"subject", "usages", "file"}, nil)
}

// Collect implements prometheus.Collector: it reads the files anew.
func (c certificates) Collect(all chan<- prometheus.Metric) {
	now := time.Now()
	entries, err := certificate.Look(c.dataDir, now)
	if err != nil {
		c.log.Warn("metrics without certificates", "error", err)
		return
	}
	seen := map[[3]string]bool{}
	for _, e := range entries {
		labels := [3]string{e.Subject, strings.Join(e.Usages, ","), strings.TrimPrefix(e.File, c.dataDir)}
		if seen[labels] { // two authorities of one name in a bundle: the first is the present one
			continue
		}
		seen[labels] = true
		all <- prometheus.MustNewConstMetric(c.desc(), prometheus.GaugeValue, e.Ends.Sub(now).Seconds(), labels[:]...)
	}
}
