# Stage one builds the programs and gathers what they need to run; the image is that and nothing else: no shell, no package
# manager, no CA store (the program trusts the cluster's CA, which is mounted). `make image` builds it.
FROM debian:trixie-slim AS build
WORKDIR /src
COPY tests/packages tests/packages
RUN tests/packages build && rm -rf /var/lib/apt/lists/*
COPY Makefile .
COPY pkg pkg
COPY controller controller
COPY tests/kills/rules.mk tests/kills/failpoint.c tests/kills/failpoint_node.c tests/kills/point.c tests/kills/point.h tests/kills/
ARG VERSION=0.1.0
# For tests/kills/run only: programs that end themselves before or after a write.
ARG FAILPOINTS=
RUN make -j"$(nproc)" NICE= VERSION="$VERSION" FAILPOINTS="$FAILPOINTS" build \
    && install -D --strip --target-directory=/out/usr/bin \
         build/release/certrotation-controller build/release/certrotation-node

# The shared libraries that the two programs load, under the names that they ask for.
RUN cd / && mkdir -p /out/usr/lib /out/usr/lib64 && ln -s usr/lib /out/lib && ln -s usr/lib64 /out/lib64 \
    && ldd /out/usr/bin/* | sed -n 's|^\t\(.* => \)\?\(/[^ ]*\) (0x.*|\2|p' | sort -u > /tmp/libraries \
    && test -s /tmp/libraries && ! ldd /out/usr/bin/* | grep 'not found' \
    && while read -r library; do install -D -m 755 "$(realpath "$library")" "/out/usr$(echo "$library" | sed 's|^/usr||')"; done \
         < /tmp/libraries

# Whose libraries these are: licences, and package records where scanners look for them. Users, and how names are resolved.
RUN xargs -n 1 realpath < /tmp/libraries | xargs dpkg-query --search | sed 's/:.*//' | sort -u > /tmp/packages \
    && mkdir -p /out/var/lib/dpkg/status.d /tmp/debs && cd /tmp/debs \
    && apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download $(cat /tmp/packages) && rm -rf /var/lib/apt/lists/* \
    && for deb in *.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -C /tmp/debs ./usr/share/doc; done \
    && for package in $(cat /tmp/packages); do \
         dpkg-query --status "$package" > "/out/var/lib/dpkg/status.d/$package"; \
         install -D -m 644 "usr/share/doc/$package/copyright" "/out/usr/share/doc/$package/copyright"; done \
    && install -D -m 644 /etc/os-release /out/etc/os-release \
    && printf 'root:x:0:0::/:/nonexistent\ncertrotation:x:65532:65532::/:/nonexistent\n' > /out/etc/passwd \
    && printf 'root:x:0:\ncertrotation:x:65532:\n' > /out/etc/group \
    && printf 'hosts: files dns\n' > /out/etc/nsswitch.conf \
    && chroot /out /usr/bin/certrotation-controller --version && chroot /out /usr/bin/certrotation-node --version

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/certrotation-controller"]
CMD ["run"]
