# The two C programs of tests/pki/programs. The Makefile may include this; the Go test calls it as
#   make -f Makefile -f tests/pki/rules.mk pki-programs
ifndef PKI_PROGRAMS
PKI_PROGRAMS := build/asan/tests/pki-driver build/release/tests/pki-peer

.PHONY: pki-programs
pki-programs: $(PKI_PROGRAMS)

build/asan/tests/pki-driver: tests/pki/programs/driver.c \
		$(call objs,asan,pkg/core/base.c pkg/core/buf.c $(wildcard pkg/core/pki*.c))
	@mkdir -p $(@D)
	$(COMPILE) -Werror $(FLAGS_asan) -Ipkg/core -o $@ $^ -lssl -lcrypto

build/release/tests/pki-peer: tests/pki/programs/peer.c
	@mkdir -p $(@D)
	$(COMPILE) -Werror $(FLAGS_release) -o $@ $^ -lssl -lcrypto
endif
