# Keelson: every verb of the project. `make help` lists them.
#
# Settings: ARCH (amd64 or arm64), USERDATA (a #cloud-config file), FIRMWARE (uefi, bios or direct),
# SIGN_KEY and SIGN_CERT (PEM files: sign for Secure Boot), KEELSON_ENROLL (a folder of keys to enrol),
# RUN (a regexp of test names), FOCUS and SKIP (of conformance: regexps of the specs' names), T (seconds a fuzz target), PART (of bench: node,
# loadbalancer, join or cluster; all where empty), RUNS (of bench), LOCKED=1 (refuse packages that are not the locked ones),
# FRESH=1 (in repro: compile everything anew for the second build),
# SLOW=1 (in vm-test: three servers in QEMU as well, which takes half an hour).

ARCH     ?= amd64
USERDATA ?= configs/user-data/server.yaml
FIRMWARE ?= uefi
NAME     ?= server
RUN      ?= .
T        ?= 30s
PART     ?=
RUNS     ?= 5
FOCUS    ?=
SKIP     ?=
LOCKED   ?= 0

IMAGE := build/keelson-$(ARCH).raw
GO    := go
# As the builder compiles, so that what a check has compiled serves the image, and the reverse.
export CGO_ENABLED := 0
export GOFLAGS := -buildvcs=false -trimpath -tags=netgo,osusergo,urfave_cli_no_docs,static_build

.DEFAULT_GOAL := help
.PHONY: help run test image formats metal iso repro check vm-test cluster-test conformance flood bench fuzz lock deps deps-build clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: image ## build the image, boot it in QEMU, show it become a Ready node; Ctrl-C ends it
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for run
	@$(GO) run ./testvm run --image $(IMAGE) --userdata $(USERDATA) --firmware $(FIRMWARE) --name $(NAME)

image: deps-build ## build build/keelson-$(ARCH).raw
	@$(GO) run ./imagebuild build --arch $(ARCH) --out $(IMAGE) --artefacts raw $(if $(filter 1,$(LOCKED)),--locked)

formats: deps-build ## the image in every format: .raw, .raw.zst, .qcow2, .vhd, .vmdk, .ova, .gce.tar.gz, .ipxe
	@$(GO) run ./imagebuild build --arch $(ARCH) --out $(IMAGE) $(if $(filter 1,$(LOCKED)),--locked)

metal: deps-build ## the disk for servers: generic kernel, their drivers and firmware; .raw, .raw.zst, .ipxe
	@$(GO) run ./imagebuild build --definition configs/images/metal.yaml --arch $(ARCH) $(if $(filter 1,$(LOCKED)),--locked)

test: check image ## everything a change must pass: check, a real boot to Ready, and as root a cluster that loses servers
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for run
	$(GO) test -count=1 -timeout 40m -v ./testvm/scenario -vm -arch $(ARCH) -image $(CURDIR)/$(IMAGE) -run '^TestScenario1[A-Z]'
	$(GO) test -count=1 -timeout 40m -v ./testvm/cluster -netns -if-possible -root $(CURDIR)/build/$(ARCH)/root.erofs -run '^TestScenario[12][A-Z]'

iso: deps-build ## build/keelson-$(ARCH).iso: CD and USB stick that run the disk for servers live
	@$(GO) run ./imagebuild build --definition configs/images/metal.yaml --artefacts iso --arch $(ARCH) $(if $(filter 1,$(LOCKED)),--locked)
	@ln -f build/keelson-metal-$(ARCH).iso build/keelson-$(ARCH).iso

repro: deps-build ## build every image twice in different circumstances and compare; FRESH=1 compiles all anew
	@$(GO) run ./imagebuild repro --arch $(ARCH) $(if $(filter 1,$(LOCKED)),--locked)

check: deps ## gofmt, vet, staticcheck and unit tests; no VM
	@unformatted=$$(gofmt -l init imagebuild node testvm); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test ./...

vm-test: formats iso ## the scenarios in QEMU; RUN=regexp chooses, SLOW=1 adds three servers
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for run
	$(GO) test -count=1 -timeout 180m -v ./testvm/scenario -vm $(if $(filter 1,$(SLOW)),-slow) -arch $(ARCH) -image $(CURDIR)/$(IMAGE) -run '$(RUN)'

cluster-test: image ## clusters of several machines, in namespaces of this host; needs root; RUN=regexp chooses
	@test "$$(id -u)" = 0 || { echo "make cluster-test: its machines are namespaces of this host, which only root can make: run it as root"; exit 1; }
	$(GO) test -count=1 -timeout 120m -v ./testvm/cluster -netns -root $(CURDIR)/build/$(ARCH)/root.erofs -run '$(RUN)'
	@if echo TestScenario8HostileListener | grep -Eq -- '$(RUN)'; then $(MAKE) --no-print-directory flood; fi

conformance: image ## specs of Kubernetes' own end-to-end suite on a server and an agent; needs root; FOCUS and SKIP choose
	@test "$$(id -u)" = 0 || { echo "make conformance: its machines are namespaces of this host, which only root can make: run it as root"; exit 1; }
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for conformance
	$(GO) test -count=1 -timeout 4h -v ./testvm/cluster -netns -root $(CURDIR)/build/$(ARCH)/root.erofs -run '^TestConformance$$' \
	  -conformance $(CURDIR)/build/conformance $(if $(FOCUS),-focus '$(FOCUS)') $(if $(SKIP),-skip '$(SKIP)')

flood: ## scenario 8: a server's listener under a minute of hostile connections and tokens
	$(GO) test ./node/server -count=1 -timeout 10m -v -run '^TestScenario8' -flood 60s

bench: $(if $(filter loadbalancer join,$(PART)),,image) ## times and sizes as a table, and build/bench.json; PART and RUNS choose
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for run
	@mkdir -p build
	@$(GO) run ./testvm bench --image $(IMAGE) --part '$(PART)' --runs $(RUNS)

fuzz: ## every fuzz target for T
	@for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' init imagebuild node testvm); do \
	  for t in $$(grep -oE '^func Fuzz[A-Za-z0-9_]+' $$f | cut -c6-); do \
	    echo "$$(dirname $$f) $$t"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(T) ./$$(dirname $$f) || exit 1; \
	  done; done

lock: deps-build ## write the lock of Debian packages anew
	@$(GO) run ./imagebuild lock --arch $(ARCH)

deps-build:
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for build

deps:
	@$(GO) run ./imagebuild deps --install --arch $(ARCH) --for check

clean: ## remove what was built; caches of downloads stay
	rm -rf build/amd64* build/arm64* build/keelson-* build/vm
