#!/bin/bash
# 35. A device ends before its session is open, by FIN, by RST and by silence, in each state: both legs end in bounded time as
#     the witnesses and the device see it, the log says why, and nothing stays behind.
# transports: socket stack
WORLD=s35
. "$(dirname "$0")/ends.sh"
#   STATE       SIDE     HOW     DEVICE UPSTREAM HEARD      SECONDS WHY
row connected   device   silence 'F'    '-'    'nothing'       10  'handshake timed out'
row connected   device   fin     'FR?'  '-'    'fin'           6   'connection closed in the handshake'
row connected   device   rst     '-'    '-'    'nothing'       6   'connection closed in the handshake'
row half-hello  device   silence 'F'    '-'    'nothing'       10  'handshake timed out'
row half-hello  device   fin     'FR?'  '-'    'fin'           6   'connection closed in the handshake'
row half-hello  device   rst     '-'    '-'    'nothing'       6   'connection closed in the handshake'
row hello       device   silence 'F'    '-'    'nothing'       10  'handshake timed out'
row hello       device   fin     'FR?'  '-'    'fin'           6   'connection closed in the handshake'
row hello       device   rst     '-'    '-'    'nothing'       6   'connection closed in the handshake'
row flight      device   silence 'F'    '-'    'nothing'       10  'handshake timed out'
row flight      device   fin     'FR?'  '-'    'fin'           6   'connection closed in the handshake'
row flight      device   rst     '-'    '-'    'nothing'       6   'connection closed in the handshake'
row admission   device   silence 'F'    '-'    'nothing'       14  'ended before it was admitted.the agent does not answer'
row admission   device   fin     'F'    '-'    'alert fin'     14  'ended before it was admitted.the agent does not answer'
row admission   device   rst     '-'    '-'    'nothing'       6   'ended before it was admitted'
row connecting  device   silence 'F|-'  '-|R'  'nothing'       10  'no answer in time.*upstream cannot be reached'
row connecting  device   fin     'FR?'  '-|R'  'alert fin'     8   'no answer in time.*upstream cannot be reached'
row connecting  device   rst     '-'    '-|R'  'nothing'       6   'device closed the connection'
nothing_left
