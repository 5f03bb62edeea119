#!/bin/bash
#
# The nova-k8s plugin of DevStack: nova-compute with K8sLibvirtDriver.
#
# DevStack sources this file once for each of its phases, with the phase as
# arguments. Every phase may run again.

_XTRACE_NOVA_K8S=$(set +o | grep xtrace)
set +o xtrace

# The manifest that the plugin writes where none is given.
NOVA_K8S_OWN_MANIFEST=$NOVA_CONF_DIR/nova-k8s-pod.yaml

function install_nova_k8s {
    local edit_constraints=$REQUIREMENTS_DIR/.venv/bin/edit-constraints
    if [[ -x "$edit_constraints" ]]; then
        # OpenStack's constraints hold the kubernetes client at what its own
        # projects were tested with, and the driver needs a newer one.
        "$edit_constraints" "$REQUIREMENTS_DIR/upper-constraints.txt" \
            -- kubernetes
    fi
    setup_develop "$NOVA_K8S_DIR"
}

function write_nova_k8s_manifest {
    # A new file takes the place of the old one, which a running nova-compute
    # may be reading.
    cat > "$NOVA_K8S_OWN_MANIFEST.new" <<MANIFEST
# Written by the nova-k8s plugin of DevStack. Change a limit here and
# nova-compute follows within a second; stack.sh writes the file again.
apiVersion: v1
kind: Pod
metadata:
  name: nova-compute
  namespace: $NOVA_K8S_NAMESPACE
spec:
  containers:
  - name: guests
    image: none
    resources:
      limits:
        cpu: "$NOVA_K8S_CPU_LIMIT"
        memory: "$NOVA_K8S_MEMORY_LIMIT"
MANIFEST
    mv "$NOVA_K8S_OWN_MANIFEST.new" "$NOVA_K8S_OWN_MANIFEST"
}

# Sets an option where there is a value for it.
function _nova_k8s_iniset {
    if [[ -n "$2" ]]; then
        iniset "$NOVA_CONF" kubernetes "$1" "$2"
    fi
}

function configure_nova_k8s {
    if [[ "$VIRT_DRIVER" != libvirt ]]; then
        die $LINENO "nova-k8s needs VIRT_DRIVER=libvirt, not $VIRT_DRIVER"
    fi
    # Not $NOVA_CPU_CONF: DevStack makes it from this one when it starts
    # nova-compute.
    iniset "$NOVA_CONF" DEFAULT compute_driver k8s.K8sLibvirtDriver
    _nova_k8s_iniset container "$NOVA_K8S_CONTAINER"
    if [[ -n "$NOVA_K8S_KUBECONFIG" ]]; then
        if [[ ! -r "$NOVA_K8S_KUBECONFIG" ]]; then
            die $LINENO "NOVA_K8S_KUBECONFIG: cannot read $NOVA_K8S_KUBECONFIG"
        fi
        if [[ -z "$NOVA_K8S_POD_SELECTOR$NOVA_K8S_POD_NAME" ]]; then
            die $LINENO "Set NOVA_K8S_POD_SELECTOR or NOVA_K8S_POD_NAME"
        fi
        _nova_k8s_iniset limits_from api
        _nova_k8s_iniset kubeconfig "$NOVA_K8S_KUBECONFIG"
        _nova_k8s_iniset namespace "$NOVA_K8S_NAMESPACE"
        _nova_k8s_iniset pod_selector "$NOVA_K8S_POD_SELECTOR"
        _nova_k8s_iniset pod_name "$NOVA_K8S_POD_NAME"
        _nova_k8s_iniset node_name "$NOVA_K8S_NODE_NAME"
        return
    fi
    local manifest=$NOVA_K8S_MANIFEST
    if [[ -z "$manifest" ]]; then
        manifest=$NOVA_K8S_OWN_MANIFEST
        write_nova_k8s_manifest
    elif [[ ! -r "$manifest" ]]; then
        die $LINENO "NOVA_K8S_MANIFEST: cannot read $manifest"
    fi
    _nova_k8s_iniset limits_from manifest
    _nova_k8s_iniset manifest "$manifest"
    _nova_k8s_iniset pod_name "$NOVA_K8S_POD_NAME"
}

if is_service_enabled n-cpu; then
    case "$1 ${2:-}" in
        "stack install")
            echo_summary "Installing nova-k8s"
            install_nova_k8s
            ;;
        "stack post-config")
            # After this phase, DevStack applies what local.conf has for
            # nova.conf, so that the operator has the last word.
            echo_summary "Configuring nova-k8s"
            configure_nova_k8s
            ;;
        "stack extra")
            echo_summary "What nova-k8s tells Nova"
            # For whoever reads the log: a nova-compute that did not start
            # has said so itself.
            "$NOVA_BIN_DIR/nova-k8s" report --config-file "$NOVA_CONF" ||
                warn $LINENO "nova-k8s report failed"
            ;;
        "unstack "*)
            # nova-compute is stopped by DevStack, and there is nothing else.
            ;;
        "clean "*)
            rm -f "$NOVA_K8S_OWN_MANIFEST" "$NOVA_K8S_OWN_MANIFEST.new"
            pip_uninstall nova-k8s
            ;;
    esac
fi

$_XTRACE_NOVA_K8S
