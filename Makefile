# gatewayd: build, test and run. Plain GNU make; `make help` lists the targets.
# It is read before any package is there, so what it asks of tools may come back empty: targets that
# install packages go on in a make of their own, which asks again.

VERSION := 0.1.0
BUILD   ?= build
PREFIX  ?= /usr/local
CC      ?= cc
LUAJIT  ?= luajit
PKG     := pkg-config
JOBS    ?= $(shell nproc 2>/dev/null || echo 1)
# For a make of our own: as many jobs as there are cores, unless the caller said.
PARALLEL = --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

# Debian's packages. LuaJIT comes as OpenResty's branch, or as the plain one.
DEB_BUILD := gcc libc6-dev make pkg-config libev-dev libyaml-dev libc-ares-dev libssl-dev \
             node-llhttp lua-cjson libluajit2-5.1-dev+luajit2,libluajit-5.1-dev+luajit
DEB_TRY   := curl
DEB_LINT  := lua-check clang-format
DEB_TEST  := lua-busted luarocks universal-ctags procps strace valgrind python3-websockets
DEB_WEB   := chromium chromium-driver
DEB_FUZZ  := clang libclang-rt-14-dev
DEB_AFL   := afl++
DEB_BENCH := nginx-light libnginx-mod-http-lua haproxy

# llhttp: the library where pkg-config knows one, else the C sources that node-llhttp brings.
ifeq ($(shell $(PKG) --exists libllhttp 2>/dev/null && echo yes),yes)
LLHTTP_CFLAGS := $(shell $(PKG) --cflags libllhttp)
LLHTTP_LIBS   := $(shell $(PKG) --libs libllhttp)
LLHTTP_C      :=
else
LLHTTP_SRC    := $(firstword $(wildcard /usr/share/llhttp /usr/share/nodejs/llhttp/build/c))
LLHTTP_CFLAGS := -isystem /usr/share/include/llhttp -DLLHTTP_STRICT_MODE=1
LLHTTP_LIBS   :=
LLHTTP_C      := llhttp api http
endif
LUA_CFLAGS := $(shell $(PKG) --cflags luajit 2>/dev/null)
LUA_LIBS   := $(shell $(PKG) --libs luajit 2>/dev/null)
SSL_CFLAGS := $(shell $(PKG) --cflags libcrypto 2>/dev/null)
SSL_LIBS   := $(shell $(PKG) --libs libcrypto 2>/dev/null)

OPTIMIZE ?= -O2 -g
HARDEN   ?= -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fstack-clash-protection
WARN     := -Wall -Wextra -Wshadow -Wmissing-prototypes $(WERROR)
CPPFLAGS += -Iruntime -D_GNU_SOURCE -DGW_VERSION='"$(VERSION)"' \
            $(subst -I,-isystem ,$(LUA_CFLAGS) $(SSL_CFLAGS)) $(LLHTTP_CFLAGS)
CFLAGS   += -std=gnu11 $(OPTIMIZE) $(HARDEN) $(WARN) $(SANITIZE)
LDFLAGS  += -Wl,-z,relro,-z,now $(SANITIZE)
LIBS     := $(LUA_LIBS) -lev -lyaml -lcares $(SSL_LIBS) -lpthread -lm -ldl $(LLHTTP_LIBS)

FLOORS   := base net http sse gateway script config
CORE_C   := $(sort $(wildcard $(FLOORS:%=runtime/%/*.c)))
MAIN_C   := $(wildcard runtime/*.c)
OBJ      := $(CORE_C:%.c=$(BUILD)/obj/%.o) $(MAIN_C:%.c=$(BUILD)/obj/%.o) \
            $(LLHTTP_C:%=$(BUILD)/obj/llhttp/%.o)
PIC      := $(CORE_C:%.c=$(BUILD)/pic/%.o) $(LLHTTP_C:%=$(BUILD)/pic/llhttp/%.o)
# With a sanitizer, one set of objects is enough for the program and for the shared object.
ifneq ($(SANITIZE),)
OBJ      := $(PIC) $(MAIN_C:%.c=$(BUILD)/pic/%.o)
endif
SERVER_C := $(wildcard test-servers/*_server.c)
SERVERS  := $(SERVER_C:test-servers/%.c=$(BUILD)/%)
COMMON   := $(filter-out $(SERVER_C),$(wildcard test-servers/*.c))
TEST_SO  := $(BUILD)/libgatewayd-test.so
BENCH_C  := $(filter-out bench/relay.c,$(wildcard bench/*.c))
BENCH    := $(BUILD)/bench/load $(BUILD)/bench/relay
FUZZ_C   := $(wildcard spec/fuzz/*.c)
FUZZERS  := $(FUZZ_C:spec/fuzz/%.c=$(BUILD)/fuzz/%)
ALL_C    := $(wildcard runtime/*.[ch] runtime/*/*.[ch] test-servers/*.[ch] bench/*.[ch] \
            spec/fuzz/*.[ch] spec/fuzz/support/*.[ch])

.PHONY: all help deps run build debug test test-only check sanitize lint format docs clean install rock
.PHONY: strictness programs test-programs compiler FORCE soak bench bench-quick bench-figures bench-deps

all: build

help:
	@echo "make run       install what is missing, build, start the demo and say what to try"
	@echo "make test      install what is missing, build, run all tests; TEST=path runs some"
	@echo "make build     build/gatewayd and the test servers"
	@echo "make debug     the same in build-debug, with checks and without optimising"
	@echo "make check     lint, tests, and the tests again on a build with sanitizers"
	@echo "make lint      warnings as errors, luacheck, clang-format"
	@echo "make format    apply clang-format"
	@echo "make docs      bring the reference in docs/configuration.md up to the schema"
	@echo "make deps      install the packages for all of this, where they are missing"
	@echo "make strictness  play the cases of HTTP against nginx and HAProxy, into docs/http-peers.md"
	@echo "make bench     measure against nginx, HAProxy and a bare relay, into docs/benchmarks.md (long)"
	@echo "make bench-quick  the same in three minutes; bench-figures prints the two short figures"
	@echo "make fuzz      fuzz each target for a minute; FUZZ=target, FUZZ_SECONDS=n (spec/fuzz/README.md)"
	@echo "make soak      200 reloads in ten minutes under 9,500 streams; SOAK=\"--workers 2\" and the like"
	@echo "make install   into PREFIX ($(PREFIX)), below DESTDIR"
	@echo "make rock      install as a rock, from this tree"
	@echo "make clean     remove what was built"

deps:
	@.ci/deps $(DEB_BUILD) $(DEB_TRY) $(DEB_LINT) $(DEB_TEST) $(DEB_WEB)

run:
	@.ci/deps $(DEB_BUILD) $(DEB_TRY)
	@$(MAKE) $(PARALLEL) programs
	@test-servers/demo.sh $(BUILD)

build:
	@$(MAKE) $(PARALLEL) programs

debug:
	@$(MAKE) $(PARALLEL) BUILD=build-debug OPTIMIZE="-O0 -g3 -DGW_DEBUG" HARDEN= programs

test: deps
	@$(MAKE) $(PARALLEL) programs test-programs
	@$(MAKE) --no-print-directory test-only

# The tests as they are, on what is built. A sanitizer's library has to come before everything else
# in the interpreter that loads our C code; leaks count, in there and in the gateway.
TEST_ENV := GATEWAYD_BUILD=$(BUILD) \
    $(if $(SANITIZE),LD_PRELOAD=$(shell $(CC) -print-file-name=libasan.so) \
    ASAN_OPTIONS=detect_leaks=1:exitcode=99 UBSAN_OPTIONS=print_stacktrace=1)
BUSTED := env $(TEST_ENV) $(LUAJIT) spec/support/busted.lua $(BUSTED_FLAGS)
test-only:
	@$(if $(TEST),$(BUSTED) $(TEST),spec/support/suite.sh $(BUSTED))

check:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory sanitize

# Where the build itself is the subject (packaging, the browser's page, house rules) once is enough.
SANITIZED := BUILD=build-asan OPTIMIZE="-O1 -g -DGW_DEBUG" HARDEN= \
    SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
sanitize:
	@.ci/deps $(DEB_BUILD) $(DEB_TEST)
	@$(MAKE) $(PARALLEL) $(SANITIZED) programs test-programs
	@$(MAKE) --no-print-directory $(SANITIZED) test-only BUSTED_FLAGS="--exclude-tags=once"

# CI has warnings as errors in its usual build as well, so that nothing has to be compiled once more.
LINT_BUILD ?= build-lint
lint:
	@.ci/deps $(DEB_BUILD) $(DEB_LINT)
	@$(MAKE) $(PARALLEL) BUILD=$(LINT_BUILD) WERROR=-Werror programs
	luacheck -q --no-color .
	@clang-format --dry-run -Werror $(ALL_C)

format:
	clang-format -i $(ALL_C)

# The reference of the keys, anew from the schema. LUA_PATH for the library in this tree.
PAGE := docs/configuration.md
docs:
	@LUA_PATH="lua/?.lua;;" $(LUAJIT) \
	    -e 'text = require("gateway.reference").update(assert(io.open("$(PAGE)")):read("*a"))' \
	    -e 'assert(io.open("$(PAGE)", "w")):write(text)'
	@LUA_PATH="./?.lua;;" $(LUAJIT) -e 'cases = dofile "spec/runtime/data/http1_cases.lua"' \
	    -e 'text = require("spec.support.decisions").update(assert(io.open("docs/http.md")):read("*a"), cases)' \
	    -e 'assert(io.open("docs/http.md", "w")):write(text)'

# One short line for each thing made; V=1 shows the commands.
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $@;)

programs: compiler $(if $(MAIN_C),$(BUILD)/gatewayd) $(SERVERS) $(BENCH)

test-programs: compiler $(TEST_SO) $(FUZZERS)

compiler:
	@[ -n "$(LUA_LIBS)" ] || { echo "no LuaJIT found by $(PKG): run 'make deps' first" >&2; false; }

$(BUILD)/gatewayd: $(OBJ)
	$(call say,LINK)$(CC) -pie -rdynamic $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# The floors as a shared object: specs call the C code through LuaJIT's FFI.
$(TEST_SO): $(PIC)
	$(call say,LINK)$(CC) -shared $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/obj/runtime/%.o: runtime/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIE -MMD -MP -c -o $@ $<

$(BUILD)/pic/runtime/%.o: runtime/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -MMD -MP -c -o $@ $<

# Errors of Lua unwind through it.
$(BUILD)/obj/runtime/script/watchdog.o $(BUILD)/pic/runtime/script/watchdog.o: CFLAGS += -fexceptions

$(BUILD)/obj/llhttp/%.o: $(LLHTTP_SRC)/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(LLHTTP_CFLAGS) $(OPTIMIZE) $(HARDEN) $(SANITIZE) -w -fPIE -c -o $@ $<

$(BUILD)/pic/llhttp/%.o: $(LLHTTP_SRC)/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(LLHTTP_CFLAGS) $(OPTIMIZE) $(HARDEN) $(SANITIZE) -w -fPIC -c -o $@ $<

$(SERVERS): $(BUILD)/%: test-servers/%.c $(COMMON) $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -D_GNU_SOURCE $(CFLAGS) -pie -fPIE $(LDFLAGS) -MMD -MP -o $@ $< $(COMMON) -lev -lm

$(BUILD)/bench/load: $(BENCH_C) $(wildcard bench/*.h) $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -D_GNU_SOURCE $(CFLAGS) -pie -fPIE $(LDFLAGS) -o $@ $(BENCH_C)

$(BUILD)/bench/relay: bench/relay.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -D_GNU_SOURCE $(CFLAGS) -pie -fPIE $(LDFLAGS) -o $@ $< -lev

# Fuzz targets: each is linked with a world in memory that stands in for libev and the kernel, and
# with a main that runs files; FUZZ_MAIN= where a fuzzer brings its own. See spec/fuzz/README.md.
FUZZ_MAIN ?= main
FUZZ_WRAP := socket connect recv send sendmsg shutdown close setsockopt getsockopt ioctl poll \
             clock_gettime time random gw_random gw_resolver_new gw_resolver_free
FUZZ_OBJ  := $(patsubst %,$(BUILD)/fuzz/obj/support/%.o,world ev reader judge $(FUZZ_MAIN))
FUZZ_CORE := $(filter-out $(BUILD)/pic/runtime/script/% %/config/settings.o,$(PIC))
$(BUILD)/fuzz/obj/%.o: spec/fuzz/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -Ispec/fuzz $(CPPFLAGS) $(CFLAGS) -fPIC -MMD -MP -c -o $@ $<

# What plays and judges is no code to be covered.
$(FUZZ_OBJ): override SANITIZE := $(filter-out -fsanitize=fuzzer-no-link,$(SANITIZE))

$(FUZZERS): $(BUILD)/fuzz/%: $(BUILD)/fuzz/obj/%.o $(FUZZ_OBJ) $(FUZZ_CORE)
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) $(FUZZ_LINK) $(FUZZ_WRAP:%=-Wl,--wrap=%) -o $@ $^ \
	    $(filter-out -lev,$(LIBS))

# FUZZ_SECONDS for each target, FUZZ=target for one of them; what is found stays in FUZZ_WORK.
FUZZ         ?= $(FUZZ_C:spec/fuzz/%.c=%)
FUZZ_SECONDS ?= 60
FUZZ_WORK    ?= build-fuzz/found
FUZZ_CC      ?= clang
FUZZING := BUILD=build-fuzz CC=$(FUZZ_CC) OPTIMIZE="-O1 -gline-tables-only -DGW_DEBUG" HARDEN= FUZZ_MAIN= \
    FUZZ_LINK=-fsanitize=fuzzer SANITIZE="-fsanitize=address,undefined -fsanitize=fuzzer-no-link \
    -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
AFL := BUILD=build-afl CC=afl-clang-fast OPTIMIZE="-O2 -g -DGW_DEBUG" HARDEN= FUZZ_MAIN= \
    FUZZ_LINK=-fsanitize=fuzzer

.PHONY: fuzz fuzz-afl fuzz-programs
fuzz-programs: compiler $(FUZZ:%=$(BUILD)/fuzz/%)

fuzz:
	@.ci/deps $(DEB_BUILD) $(DEB_FUZZ)
	@$(MAKE) $(PARALLEL) $(FUZZING) FUZZ="$(FUZZ)" fuzz-programs
	@spec/fuzz/run.sh build-fuzz $(FUZZ_SECONDS) $(FUZZ_WORK) $(FUZZ)

# One target at a time; what AFL++ says of the machine's settings is no reason not to run.
fuzz-afl:
	@.ci/deps $(DEB_BUILD) $(DEB_FUZZ) $(DEB_AFL)
	@$(MAKE) $(PARALLEL) $(AFL) FUZZ="$(FUZZ)" fuzz-programs
	@for target in $(FUZZ); do \
	    mkdir -p build-afl/found && AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 \
	    AFL_NO_AFFINITY=1 afl-fuzz -V $(FUZZ_SECONDS) -i spec/fuzz/corpus/$$target \
	    -o build-afl/found/$$target -- build-afl/fuzz/$$target >build-afl/found/$$target.log 2>&1; \
	    grep -e '^execs_done' -e '^saved_crashes' -e '^edges_found' \
	    build-afl/found/$$target/default/fuzzer_stats || exit 1; \
	done

# Objects are made again when the flags change, and those that know where things get installed when
# that changes. A stamp holds each, and is out of date only when it holds something else.
FLAGS     := $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)
SHARE     := $(PREFIX)/share/gatewayd
SHARE_C   := $(shell grep -ls GW_SHARE runtime/*.c runtime/*/*.c)
SHARE_OBJ := $(SHARE_C:%.c=$(BUILD)/obj/%.o) $(SHARE_C:%.c=$(BUILD)/pic/%.o)
$(SHARE_OBJ): CPPFLAGS += -DGW_SHARE='"$(SHARE)"'
$(SHARE_OBJ): $(BUILD)/share

stamp = $(shell mkdir -p $(BUILD))$(file >$@,$(1))
ifneq ($(strip $(FLAGS)),$(strip $(file <$(BUILD)/flags)))
$(BUILD)/flags: FORCE
endif
ifneq ($(SHARE),$(strip $(file <$(BUILD)/share)))
$(BUILD)/share: FORCE
endif
$(BUILD)/flags:
	@:$(call stamp,$(FLAGS))
$(BUILD)/share:
	@:$(call stamp,$(SHARE))

# Benchmarks need a quiet machine with two cores and are no part of the tests. What nginx and HAProxy
# are compared by comes from Debian; nothing of it is left running.
bench-deps:
	@.ci/deps $(DEB_BUILD) $(DEB_BENCH) procps

bench bench-quick bench-figures: bench-deps
	@$(MAKE) $(PARALLEL) programs
	@GATEWAYD_BUILD=$(BUILD) $(LUAJIT) bench/run.lua $(patsubst bench-%,--%,$(filter bench-%,$@))

# The cases of HTTP against nginx and HAProxy, into docs/http-peers.md.
strictness: bench-deps
	@$(MAKE) $(PARALLEL) programs
	@GATEWAYD_BUILD=$(BUILD) $(LUAJIT) bench/strictness.lua

SOAK ?=
soak:
	@.ci/deps $(DEB_BUILD) procps
	@$(MAKE) $(PARALLEL) programs
	@GATEWAYD_BUILD=$(BUILD) $(LUAJIT) bench/soak.lua $(SOAK)

# LUADIR: where a rock keeps its Lua modules; then the library goes there as well.
TO := $(DESTDIR)$(PREFIX)
install:
	@$(MAKE) $(PARALLEL) $(BUILD)/gatewayd
	install -d $(TO)/bin $(TO)/share/gatewayd
	install -m 755 $(BUILD)/gatewayd $(TO)/bin/
	cp -R lua plugins conf $(TO)/share/gatewayd/
	$(if $(LUADIR),cp -R lua/. $(LUADIR)/)

ROCK_FLAGS ?= --local --deps-mode=none
rock:
	luarocks --lua-version=5.1 make $(ROCK_FLAGS) \
	    LUA_INCDIR=$(shell $(PKG) --variable=includedir luajit) gatewayd-scm-1.rockspec

clean:
	rm -rf build build-*

-include $(OBJ:.o=.d) $(PIC:.o=.d) $(SERVERS:=.d) $(wildcard $(BUILD)/fuzz/obj/*.d $(BUILD)/fuzz/obj/support/*.d)
